//! Sessions, locks and transactions beside a real Consul's.

use crate::script::{Step, delete, get, put};

/// What the rest of the script does not touch: every key lies under `locks/`.
pub(crate) fn locks() -> Vec<Step> {
    [sessions(), held(), refused(), transactions(), over()].into_iter().flatten().collect()
}

fn sessions() -> Vec<Step> {
    vec![
        get("/v1/session/list"),
        put("/v1/session/create", r#"{"Name":"one","LockDelay":"0s"}"#).capture("one", "/ID"),
        put("/v1/session/create", r#"{"Name":"two","LockDelay":30,"Behavior":"delete","TTL":"60s","NodeChecks":[]}"#)
            .capture("two", "/ID"),
        put("/v1/session/create", "").capture("three", "/ID"),
        get("/v1/session/info/${one}"),
        get("/v1/session/info/${two}"),
        get("/v1/session/info/${three}"),
        get("/v1/session/info/00000000-0000-0000-0000-000000000000"),
        put("/v1/session/renew/${two}", ""),
        put("/v1/session/renew/00000000-0000-0000-0000-000000000000", ""),
        get("/v1/session/node/nowhere"),
        put("/v1/session/destroy/${three}", ""),
        put("/v1/session/destroy/${three}", ""),
        get("/v1/session/info/${three}"),
    ]
}

fn held() -> Vec<Step> {
    vec![
        put("/v1/kv/locks/a?acquire=${one}", "1"),
        get("/v1/kv/locks/a"),
        put("/v1/kv/locks/a?acquire=${one}&flags=9", "2"),
        get("/v1/kv/locks/a"),
        put("/v1/kv/locks/a?acquire=${two}", "3"),
        put("/v1/kv/locks/a?release=${two}", "3"),
        put("/v1/kv/locks/a?release=${one}", "4"),
        get("/v1/kv/locks/a"),
        put("/v1/kv/locks/a?acquire=${two}", "5"),
        put("/v1/kv/locks/b?acquire=${one}", "1"),
        get("/v1/kv/locks/?recurse"),
        put("/v1/kv/locks/a?acquire=", "x"),
        put("/v1/kv/locks/free?acquire=00000000-0000-0000-0000-000000000000", "x"),
        put("/v1/kv/locks/absent?release=${one}", "x"),
        // What the end of a session does: one gives back, two deletes and shuts.
        put("/v1/session/destroy/${one}", ""),
        get("/v1/kv/locks/b"),
        put("/v1/session/destroy/${two}", ""),
        get("/v1/kv/locks/a"),
        put("/v1/session/create", r#"{"LockDelay":"0s"}"#).capture("four", "/ID"),
        put("/v1/kv/locks/a?acquire=${four}", "1"),
        put("/v1/kv/locks/b?acquire=${four}", "1"),
        get("/v1/kv/locks/b"),
    ]
}

fn refused() -> Vec<Step> {
    vec![
        put("/v1/session/create", r#"{"TTL":"5s"}"#),
        put("/v1/session/create", r#"{"TTL":"25h"}"#),
        put("/v1/session/create", r#"{"TTL":"soon"}"#),
        put("/v1/session/create", r#"{"Behavior":"keep"}"#),
        put("/v1/session/create", r#"{"Node":"nowhere"}"#),
        put("/v1/session/create", r#"{"Node":""}"#),
        put("/v1/session/create", r#"{"NodeChecks":["nothing"]}"#),
        put("/v1/session/create", r#"{"LockDelay":"soon"}"#),
        put("/v1/session/create", r#"{"Unknown":1,"LockDelay":"90s"}"#).capture("five", "/ID"),
        get("/v1/session/info/${five}"),
        put("/v1/session/destroy/${five}", ""),
        put("/v1/session/destroy/", ""),
        put("/v1/session/renew/", ""),
        get("/v1/session/info/"),
        get("/v1/session/node/"),
        get("/v1/session/create"),
        get("/v1/txn"),
    ]
}

fn transactions() -> Vec<Step> {
    vec![
        put("/v1/txn", "[]"),
        put(
            "/v1/txn",
            r#"[{"KV":{"Verb":"set","Key":"locks/t","Value":"MQ==","Flags":7}},{"KV":{"Verb":"get","Key":"locks/t"}}]"#,
        ),
        put("/v1/txn", r#"[{"KV":{"Verb":"get","Key":"locks/t"}},{"KV":{"Verb":"get-tree","Key":"locks/t"}}]"#),
        put("/v1/txn", r#"[{"KV":{"Verb":"get","Key":"locks/none"}}]"#),
        put(
            "/v1/txn",
            r#"[{"KV":{"Verb":"set","Key":"locks/u","Value":"MQ=="}},{"KV":{"Verb":"cas","Key":"locks/t","Index":1}},
                {"KV":{"Verb":"check-not-exists","Key":"locks/t"}},{"KV":{"Verb":"delete-cas","Key":"locks/t","Index":1}},
                {"KV":{"Verb":"check-session","Key":"locks/none"}},{"KV":{"Verb":"check-index","Key":"locks/none","Index":1}}]"#,
        ),
        get("/v1/kv/locks/u"),
        put("/v1/txn", r#"[{"KV":{"Verb":"lock","Key":"locks/t","Session":"00000000-0000-0000-0000-000000000000"}}]"#),
        put("/v1/txn", r#"[{"KV":{"Verb":"lock","Key":"locks/t"}}]"#),
        put(
            "/v1/txn",
            r#"[{"KV":{"Verb":"unlock","Key":"locks/b","Session":"00000000-0000-0000-0000-000000000000"}}]"#,
        ),
        put("/v1/txn", r#"[{"KV":{"Verb":"lock","Key":"locks/b","Session":"00000000-0000-0000-0000-000000000000"}}]"#),
        put("/v1/txn", r#"[{"KV":{"Verb":"dance","Key":"locks/t"}}]"#),
        put(
            "/v1/txn",
            r#"[{"Node":{"Verb":"set","Node":{"Node":"txn1","Address":"192.0.2.90"}}},
                {"Service":{"Verb":"set","Node":"txn1","Service":{"ID":"s1","Service":"txn-web","Port":80}}},
                {"Check":{"Verb":"set","Check":{"Node":"txn1","CheckID":"c1","Name":"c","Status":"passing","ServiceID":"s1"}}}]"#,
        ),
        put(
            "/v1/txn",
            r#"[{"Node":{"Verb":"get","Node":{"Node":"txn1"}}},{"Check":{"Verb":"get","Check":{"Node":"txn1","CheckID":"c1"}}}]"#,
        ),
        put("/v1/txn", r#"[{"Service":{"Verb":"get","Node":"txn1","Service":{"ID":"s1"}}}]"#),
        put("/v1/txn", r#"[{"Node":{"Verb":"get","Node":{"Node":"none"}}}]"#),
        put("/v1/txn", r#"[{"Service":{"Verb":"get","Node":"txn1","Service":{"ID":"none"}}}]"#),
        put("/v1/txn", r#"[{"Check":{"Verb":"get","Check":{"Node":"txn1","CheckID":"none"}}}]"#),
        put("/v1/txn", r#"[{"Node":{"Verb":"cas","Node":{"Node":"txn1","Address":"192.0.2.91","ModifyIndex":1}}}]"#),
        put(
            "/v1/txn",
            r#"[{"Service":{"Verb":"delete-cas","Node":"txn1","Service":{"ID":"s1","Service":"txn-web","ModifyIndex":1}}}]"#,
        ),
        put("/v1/txn", r#"[{"Check":{"Verb":"delete-cas","Check":{"Node":"txn1","CheckID":"c1","ModifyIndex":1}}}]"#),
        put("/v1/txn", r#"[{"Service":{"Verb":"set","Node":"none","Service":{"ID":"s1","Service":"txn-web"}}}]"#),
        put(
            "/v1/txn",
            r#"[{"KV":{"Verb":"delete","Key":"locks/t"}},{"Node":{"Verb":"delete","Node":{"Node":"txn1"}}}]"#,
        ),
        get("/v1/catalog/node/txn1"),
    ]
}

fn over() -> Vec<Step> {
    vec![
        put("/v1/session/destroy/${four}", ""),
        get("/v1/session/list"),
        delete("/v1/kv/locks/?recurse"),
        get("/v1/kv/locks/?keys"),
    ]
}
