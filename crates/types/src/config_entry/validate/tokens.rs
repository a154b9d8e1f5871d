//! Who issues tokens for requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::ConfigEntry;
use super::{Valid, number, said, text};

pub(super) fn jwt_provider(entry: &ConfigEntry) -> Valid {
    let keys = entry.field("JSONWebKeySet");
    if !keys.is_object() {
        return Err("JSONWebKeySet is required".into());
    }
    if said(&[keys["Local"].is_object(), keys["Remote"].is_object()]) != 1 {
        return Err("must specify exactly one of Local or Remote JSON Web key set".into());
    }
    if keys["Local"].is_object() {
        local(&keys["Local"])?;
    } else {
        remote(&keys["Remote"])?;
    }
    for location in entry.rows("Locations") {
        let sides = ["Header", "QueryParam", "Cookie"].map(|name| location[name].is_object());
        if said(&sides) != 1 {
            return Err("must set exactly one of: JWT location header, query param or cookie".into());
        }
        for (name, words) in [("Header", "header"), ("QueryParam", "query param"), ("Cookie", "cookie")] {
            if location[name].is_object() && text(&location[name], "Name").is_empty() {
                return Err(format!("JWT location {words} name must be specified"));
            }
        }
    }
    if entry.field("Forwarding").is_object() && text(entry.field("Forwarding"), "HeaderName").is_empty() {
        return Err("Header name required for forwarding config".into());
    }
    Ok(())
}

fn local(keys: &Value) -> Valid {
    let (set, file) = (text(keys, "JWKS"), text(keys, "Filename"));
    if said(&[!set.is_empty(), !file.is_empty()]) != 1 {
        return Err("must specify exactly one of String or filename for local keyset".into());
    }
    if !set.is_empty() && STANDARD.decode(set).is_err() {
        return Err("JWKS must be valid base64 encoded string".into());
    }
    Ok(())
}

fn remote(keys: &Value) -> Valid {
    let uri = text(keys, "URI");
    if uri.is_empty() {
        return Err("Remote JWKS URI is required".into());
    }
    if !uri.starts_with("http://") && !uri.starts_with("https://") {
        return Err(format!("Remote JWKS URI is invalid: it must begin with http:// or https://, uri: {uri}"));
    }
    let pause = &keys["RetryPolicy"]["RetryPolicyBackOff"];
    let most = number(pause, "MaxInterval");
    if most != 0 && number(pause, "BaseInterval") > most {
        return Err("retry policy backoff's MaxInterval should be greater or equal to BaseInterval".into());
    }
    let cluster = &keys["JWKSCluster"];
    let discovery = text(cluster, "DiscoveryType");
    if !matches!(discovery, "" | "STRICT_DNS" | "STATIC" | "LOGICAL_DNS" | "EDS" | "ORIGINAL_DST") {
        return Err(format!("unsupported jwks cluster discovery type: {discovery:?}"));
    }
    let certificates = &cluster["TLSCertificates"];
    if !certificates.is_object() {
        return Ok(());
    }
    let trusted = &certificates["TrustedCA"];
    if said(&[certificates["CaCertificateProviderInstance"].is_object(), trusted.is_object()]) != 1 {
        return Err(
            "must specify exactly one of: CaCertificateProviderInstance or TrustedCA for JKWS' TLSCertificates".into(),
        );
    }
    let sources =
        ["Filename", "EnvironmentVariable", "InlineString", "InlineBytes"].map(|name| !text(trusted, name).is_empty());
    if trusted.is_object() && said(&sources) != 1 {
        return Err(
            "must specify exactly one of: Filename, EnvironmentVariable, InlineString or InlineBytes for JWKS' \
                    TrustedCA"
                .into(),
        );
    }
    Ok(())
}
