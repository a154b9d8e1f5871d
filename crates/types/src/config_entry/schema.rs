//! The fields of each kind, as Consul 1.21 names them. The order is that of its structs and means nothing.

use super::ConfigKind;
use super::canonical::Presence::{Always, Filled, Given};
use super::canonical::Shape::{
    Boolean, Dropped, Duration, Free, Integer, Integers, List, Lower, Map, Nanoseconds, Object, Share, Text, TextMap,
    Texts, Upper, Uppers,
};
use super::canonical::{Field, Fields, Presence, Shape};

const fn field(name: &'static str, shape: Shape, presence: Presence) -> Field {
    Field { name, shape, presence }
}

/// A field that is left out while it is empty.
const fn opt(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Filled)
}

/// A field that is told even when it is zero, if it was given.
const fn given(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Given)
}

/// A field that is always told.
const fn must(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Always)
}

/// The fields of a kind beside those that all of them have.
pub(super) fn of(kind: ConfigKind) -> Fields {
    match kind {
        ConfigKind::ServiceDefaults => SERVICE_DEFAULTS,
        ConfigKind::ProxyDefaults => PROXY_DEFAULTS,
        ConfigKind::ServiceResolver => SERVICE_RESOLVER,
        ConfigKind::ServiceSplitter => SERVICE_SPLITTER,
        ConfigKind::ServiceRouter => SERVICE_ROUTER,
        ConfigKind::Mesh => MESH,
        ConfigKind::ExportedServices => EXPORTED_SERVICES,
        ConfigKind::IngressGateway => INGRESS_GATEWAY,
        ConfigKind::TerminatingGateway => TERMINATING_GATEWAY,
        ConfigKind::ApiGateway => API_GATEWAY,
        ConfigKind::BoundApiGateway => BOUND_API_GATEWAY,
        ConfigKind::HttpRoute => HTTP_ROUTE,
        ConfigKind::TcpRoute => TCP_ROUTE,
        ConfigKind::InlineCertificate | ConfigKind::FileSystemCertificate => CERTIFICATE,
        ConfigKind::JwtProvider => JWT_PROVIDER,
    }
}

const CERTIFICATE: Fields = &[must("Certificate", Text), must("PrivateKey", Text)];

const MESH_GATEWAY: Fields = &[opt("Mode", Text)];

const TRANSPARENT_PROXY: Fields = &[opt("OutboundListenerPort", Integer), opt("DialedDirectly", Boolean)];

const EXPOSE: Fields = &[
    opt("Checks", Boolean),
    opt(
        "Paths",
        List(&[
            opt("ListenerPort", Integer),
            opt("Path", Text),
            opt("LocalPathPort", Integer),
            opt("Protocol", Lower),
            opt("ParsedFromCheck", Boolean),
        ]),
    ),
];

const ENVOY_EXTENSION: Fields = &[
    must("Name", Text),
    must("Required", Boolean),
    must("Arguments", Free),
    must("ConsulVersion", Text),
    must("EnvoyVersion", Text),
];

const HEADER_MODIFIERS: Fields = &[opt("Add", TextMap), opt("Set", TextMap), opt("Remove", Texts)];

const PASSIVE_HEALTH_CHECK: Fields = &[
    opt("Interval", Nanoseconds),
    opt("MaxFailures", Integer),
    given("EnforcingConsecutive5xx", Integer),
    given("MaxEjectionPercent", Integer),
    given("BaseEjectionTime", Nanoseconds),
];

const UPSTREAM_LIMITS: Fields =
    &[given("MaxConnections", Integer), given("MaxPendingRequests", Integer), given("MaxConcurrentRequests", Integer)];

const UPSTREAM: Fields = &[
    opt("Name", Text),
    must("Peer", Text),
    opt("EnvoyListenerJSON", Text),
    opt("EnvoyClusterJSON", Text),
    opt("Protocol", Lower),
    opt("ConnectTimeoutMs", Integer),
    opt("Limits", Object(UPSTREAM_LIMITS)),
    opt("PassiveHealthCheck", Object(PASSIVE_HEALTH_CHECK)),
    must("MeshGateway", Object(MESH_GATEWAY)),
    opt("BalanceOutboundConnections", Text),
];

const RATE_LIMIT_ROUTE: Fields = &[
    opt("PathExact", Text),
    opt("PathPrefix", Text),
    opt("PathRegex", Text),
    must("RequestsPerSecond", Integer),
    must("RequestsMaxBurst", Integer),
];

const SERVICE_DEFAULTS: Fields = &[
    must("Protocol", Lower),
    opt("Mode", Text),
    must("TransparentProxy", Object(TRANSPARENT_PROXY)),
    opt("MutualTLSMode", Text),
    must("MeshGateway", Object(MESH_GATEWAY)),
    must("Expose", Object(EXPOSE)),
    opt("ExternalSNI", Text),
    opt("UpstreamConfig", Object(&[opt("Overrides", List(UPSTREAM)), opt("Defaults", Object(UPSTREAM))])),
    opt("Destination", Object(&[opt("Addresses", Texts), opt("Port", Integer)])),
    opt("MaxInboundConnections", Integer),
    opt("LocalConnectTimeoutMs", Integer),
    opt("LocalRequestTimeoutMs", Integer),
    opt("BalanceInboundConnections", Text),
    opt(
        "RateLimits",
        Object(&[must(
            "InstanceLevel",
            Object(&[
                must("RequestsPerSecond", Integer),
                must("RequestsMaxBurst", Integer),
                must("Routes", List(RATE_LIMIT_ROUTE)),
            ]),
        )]),
    ),
    opt("EnvoyExtensions", List(ENVOY_EXTENSION)),
];

const FAILOVER_POLICY: Fields = &[opt("Mode", Text), opt("Regions", Texts)];

const PROXY_DEFAULTS: Fields = &[
    must("Config", Free),
    opt("Mode", Text),
    must("TransparentProxy", Object(TRANSPARENT_PROXY)),
    opt("MutualTLSMode", Text),
    must("MeshGateway", Object(MESH_GATEWAY)),
    must("Expose", Object(EXPOSE)),
    must(
        "AccessLogs",
        Object(&[
            opt("Enabled", Boolean),
            opt("DisableListenerLogs", Boolean),
            opt("Type", Text),
            opt("Path", Text),
            opt("JSONFormat", Text),
            opt("TextFormat", Text),
        ]),
    ),
    opt("EnvoyExtensions", List(ENVOY_EXTENSION)),
    opt("FailoverPolicy", Object(FAILOVER_POLICY)),
    opt("PrioritizeByLocality", Object(&[opt("Mode", Text)])),
];

const FAILOVER_TARGET: Fields =
    &[opt("Service", Text), opt("ServiceSubset", Text), opt("Datacenter", Text), opt("Peer", Text)];

const LOAD_BALANCER: Fields = &[
    opt("Policy", Text),
    opt("RingHashConfig", Object(&[opt("MinimumRingSize", Integer), opt("MaximumRingSize", Integer)])),
    opt("LeastRequestConfig", Object(&[opt("ChoiceCount", Integer)])),
    opt(
        "HashPolicies",
        List(&[
            opt("Field", Text),
            opt("FieldValue", Text),
            opt("CookieConfig", Object(&[opt("Session", Boolean), opt("TTL", Nanoseconds), opt("Path", Text)])),
            opt("SourceIP", Boolean),
            opt("Terminal", Boolean),
        ]),
    ),
];

const SERVICE_RESOLVER: Fields = &[
    opt("DefaultSubset", Text),
    opt("Subsets", Map(&[opt("Filter", Text), opt("OnlyPassing", Boolean)])),
    opt("Redirect", Object(FAILOVER_TARGET)),
    opt(
        "Failover",
        Map(&[
            opt("Service", Text),
            opt("ServiceSubset", Text),
            opt("Datacenters", Texts),
            opt("Targets", List(FAILOVER_TARGET)),
            opt("Policy", Object(FAILOVER_POLICY)),
        ]),
    ),
    opt("ConnectTimeout", Duration),
    opt("RequestTimeout", Duration),
    opt("LoadBalancer", Object(LOAD_BALANCER)),
    opt("PrioritizeByLocality", Object(&[opt("Mode", Text)])),
];

const SERVICE_SPLITTER: Fields = &[must(
    "Splits",
    List(&[
        must("Weight", Share),
        opt("Service", Text),
        opt("ServiceSubset", Text),
        opt("RequestHeaders", Object(HEADER_MODIFIERS)),
        opt("ResponseHeaders", Object(HEADER_MODIFIERS)),
    ]),
)];

const SERVICE_ROUTER: Fields = &[must(
    "Routes",
    List(&[
        opt("Match", Object(&[opt("HTTP", Object(ROUTE_MATCH))])),
        opt(
            "Destination",
            Object(&[
                opt("Service", Text),
                opt("ServiceSubset", Text),
                opt("PrefixRewrite", Text),
                opt("RequestTimeout", Duration),
                opt("IdleTimeout", Duration),
                opt("NumRetries", Integer),
                opt("RetryOnConnectFailure", Boolean),
                opt("RetryOn", Texts),
                opt("RetryOnStatusCodes", Integers),
                opt("RequestHeaders", Object(HEADER_MODIFIERS)),
                opt("ResponseHeaders", Object(HEADER_MODIFIERS)),
            ]),
        ),
    ]),
)];

const ROUTE_MATCH: Fields = &[
    opt("PathExact", Text),
    opt("PathPrefix", Text),
    opt("PathRegex", Text),
    opt("CaseInsensitive", Boolean),
    opt(
        "Header",
        List(&[
            must("Name", Text),
            opt("Present", Boolean),
            opt("Exact", Text),
            opt("Prefix", Text),
            opt("Suffix", Text),
            opt("Regex", Text),
            opt("Invert", Boolean),
        ]),
    ),
    opt("QueryParam", List(&[must("Name", Text), opt("Present", Boolean), opt("Exact", Text), opt("Regex", Text)])),
    opt("Methods", Uppers),
];

const TLS_DIRECTION: Fields = &[opt("TLSMinVersion", Text), opt("TLSMaxVersion", Text), opt("CipherSuites", Texts)];

const MESH: Fields = &[
    must("TransparentProxy", Object(&[must("MeshDestinationsOnly", Boolean)])),
    opt("AllowEnablingPermissiveMutualTLS", Boolean),
    opt("ValidateClusters", Boolean),
    opt("TLS", Object(&[opt("Incoming", Object(TLS_DIRECTION)), opt("Outgoing", Object(TLS_DIRECTION))])),
    opt(
        "HTTP",
        Object(&[
            must("SanitizeXForwardedClientCert", Boolean),
            opt(
                "Incoming",
                Object(&[opt(
                    "RequestNormalization",
                    Object(&[
                        must("InsecureDisablePathNormalization", Boolean),
                        must("MergeSlashes", Boolean),
                        must("PathWithEscapedSlashesAction", Text),
                        must("HeadersWithUnderscoresAction", Text),
                    ]),
                )]),
            ),
        ]),
    ),
    opt("Peering", Object(&[must("PeerThroughMeshGateways", Boolean)])),
];

const EXPORTED_SERVICES: Fields = &[must(
    "Services",
    List(&[must("Name", Text), must("Consumers", List(&[opt("Peer", Text), opt("SamenessGroup", Text)]))]),
)];

const SDS: Fields = &[opt("ClusterName", Text), opt("CertResource", Text)];

const GATEWAY_TLS: Fields = &[
    must("Enabled", Boolean),
    opt("SDS", Object(SDS)),
    opt("TLSMinVersion", Text),
    opt("TLSMaxVersion", Text),
    opt("CipherSuites", Texts),
];

const INGRESS_SERVICE: Fields = &[
    must("Name", Text),
    must("Hosts", Texts),
    opt("TLS", Object(&[opt("SDS", Object(SDS))])),
    opt("RequestHeaders", Object(HEADER_MODIFIERS)),
    opt("ResponseHeaders", Object(HEADER_MODIFIERS)),
    opt("MaxConnections", Integer),
    opt("MaxPendingRequests", Integer),
    opt("MaxConcurrentRequests", Integer),
    opt("PassiveHealthCheck", Object(PASSIVE_HEALTH_CHECK)),
    opt("Meta", TextMap),
];

const INGRESS_GATEWAY: Fields = &[
    must("TLS", Object(GATEWAY_TLS)),
    must(
        "Listeners",
        List(&[
            must("Port", Integer),
            must("Protocol", Lower),
            opt("TLS", Object(GATEWAY_TLS)),
            must("Services", List(INGRESS_SERVICE)),
        ]),
    ),
    opt(
        "Defaults",
        Object(&[
            must("MaxConnections", Integer),
            must("MaxPendingRequests", Integer),
            must("MaxConcurrentRequests", Integer),
            opt("PassiveHealthCheck", Object(PASSIVE_HEALTH_CHECK)),
        ]),
    ),
];

const TERMINATING_GATEWAY: Fields = &[must(
    "Services",
    List(&[
        opt("Name", Text),
        opt("CAFile", Text),
        opt("CertFile", Text),
        opt("KeyFile", Text),
        opt("SNI", Text),
        opt("DisableAutoHostRewrite", Boolean),
    ]),
)];

const REFERENCE: Fields = &[must("Kind", Text), must("Name", Text), must("SectionName", Text)];

const GATEWAY_POLICY: Fields = &[opt("JWT", Free)];

const API_GATEWAY: Fields = &[
    must(
        "Listeners",
        List(&[
            must("Name", Text),
            must("Hostname", Text),
            must("Port", Integer),
            must("Protocol", Lower),
            must(
                "TLS",
                Object(&[
                    must("Certificates", List(REFERENCE)),
                    must("MaxVersion", Text),
                    must("MinVersion", Text),
                    must("CipherSuites", Texts),
                ]),
            ),
            opt("Override", Object(GATEWAY_POLICY)),
            opt("Default", Object(GATEWAY_POLICY)),
        ]),
    ),
    opt("Status", Dropped),
];

const BOUND_API_GATEWAY: Fields = &[must("Listeners", Free), must("Services", Free)];

const HTTP_FILTERS: Fields = &[
    must("Headers", List(&[must("Add", TextMap), must("Remove", Texts), must("Set", TextMap)])),
    opt("URLRewrite", Object(&[must("Path", Text)])),
    opt(
        "RetryFilter",
        Object(&[
            must("NumRetries", Integer),
            must("RetryOn", Texts),
            must("RetryOnStatusCodes", Integers),
            must("RetryOnConnectFailure", Boolean),
        ]),
    ),
    opt("TimeoutFilter", Object(&[must("RequestTimeout", Nanoseconds), must("IdleTimeout", Nanoseconds)])),
    opt("JWT", Free),
];

const HTTP_RESPONSE_FILTERS: Fields =
    &[must("Headers", List(&[must("Add", TextMap), must("Remove", Texts), must("Set", TextMap)]))];

const HTTP_ROUTE: Fields = &[
    must("Parents", List(REFERENCE)),
    must(
        "Rules",
        List(&[
            opt("Filters", Object(HTTP_FILTERS)),
            opt("ResponseFilters", Object(HTTP_RESPONSE_FILTERS)),
            must(
                "Matches",
                List(&[
                    must("Headers", List(&[must("Match", Text), must("Name", Text), must("Value", Text)])),
                    must("Method", Upper),
                    must("Path", Object(&[must("Match", Text), must("Value", Text)])),
                    must("Query", List(&[must("Match", Text), must("Name", Text), must("Value", Text)])),
                ]),
            ),
            must(
                "Services",
                List(&[
                    must("Name", Text),
                    must("Weight", Integer),
                    opt("Filters", Object(HTTP_FILTERS)),
                    opt("ResponseFilters", Object(HTTP_RESPONSE_FILTERS)),
                ]),
            ),
        ]),
    ),
    must("Hostnames", Texts),
    opt("Status", Dropped),
];

const TCP_ROUTE: Fields =
    &[must("Parents", List(REFERENCE)), must("Services", List(&[must("Name", Text)])), opt("Status", Dropped)];

const JWT_PROVIDER: Fields = &[
    opt("JSONWebKeySet", Object(&[opt("Local", Object(LOCAL_KEYS)), opt("Remote", Object(REMOTE_KEYS))])),
    opt("Issuer", Text),
    opt("Audiences", Texts),
    opt(
        "Locations",
        List(&[
            opt("Header", Object(&[opt("Name", Text), opt("ValuePrefix", Text), opt("Forward", Boolean)])),
            opt("QueryParam", Object(&[opt("Name", Text)])),
            opt("Cookie", Object(&[opt("Name", Text)])),
        ]),
    ),
    opt("Forwarding", Object(&[opt("HeaderName", Text), must("PadForwardPayloadHeader", Boolean)])),
    opt("ClockSkewSeconds", Integer),
    opt("CacheConfig", Object(&[opt("Size", Integer)])),
];

const LOCAL_KEYS: Fields = &[opt("JWKS", Text), opt("Filename", Text)];

const REMOTE_KEYS: Fields = &[
    opt("URI", Text),
    opt("RequestTimeoutMs", Integer),
    opt("CacheDuration", Nanoseconds),
    opt("FetchAsynchronously", Boolean),
    opt(
        "RetryPolicy",
        Object(&[
            opt("NumRetries", Integer),
            opt("RetryPolicyBackOff", Object(&[opt("BaseInterval", Nanoseconds), opt("MaxInterval", Nanoseconds)])),
        ]),
    ),
    opt(
        "JWKSCluster",
        Object(&[
            opt("DiscoveryType", Text),
            opt(
                "TLSCertificates",
                Object(&[
                    opt(
                        "CaCertificateProviderInstance",
                        Object(&[opt("InstanceName", Text), opt("CertificateName", Text)]),
                    ),
                    opt(
                        "TrustedCA",
                        Object(&[
                            opt("Filename", Text),
                            opt("EnvironmentVariable", Text),
                            opt("InlineString", Text),
                            opt("InlineBytes", Text),
                        ]),
                    ),
                ]),
            ),
            opt("ConnectTimeout", Nanoseconds),
        ]),
    ),
];
