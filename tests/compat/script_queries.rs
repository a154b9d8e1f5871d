//! The part of the script about prepared queries and user events. It needs the service `web`.

use crate::script::{Step, delete, get, post, put};

/// A query that is stored, found, changed and removed, templates, and what is refused.
pub(crate) fn queries() -> Vec<Step> {
    vec![
        get("/v1/query"),
        post("/v1/query", r#"{"Name":"geo","Service":{"Service":"web","Tags":["v1"]},"DNS":{"TTL":"10s"}}"#)
            .capture("query", "/ID"),
        get("/v1/query/${query}"),
        get("/v1/query/${query}/execute"),
        get("/v1/query/geo/execute?limit=1&near=_agent"),
        get("/v1/query/GEO/explain"),
        put("/v1/query/${query}", r#"{"Name":"geo2","Service":{"Service":"web","Tags":["none"],"NodeMeta":{"a":"b"}}}"#),
        get("/v1/query/${query}"),
        get("/v1/query/geo2/execute"),
        get("/v1/query/geo/execute"),
        get("/v1/query/geo/explain"),
        post("/v1/query", r#"{"Name":"geo2","Service":{"Service":"web"}}"#),
        post("/v1/query", r#"{"Name":"${query}","Service":{"Service":"web"}}"#),
        delete("/v1/query/${query}"),
        delete("/v1/query/${query}"),
        get("/v1/query/${query}"),
        post(
            "/v1/query",
            r#"{"Name":"t-","Template":{"Type":"name_prefix_match","Regexp":"^t-(.)(.*)$","RemoveEmptyTags":true},"Service":{"Service":"${name.suffix}","Tags":["${match(1)}","${match(9)}","$${x}"]}}"#,
        )
        .capture("template", "/ID"),
        get("/v1/query/t-web/explain"),
        get("/v1/query/${template}/execute"),
        get("/v1/query"),
        delete("/v1/query/${template}"),
        post("/v1/query", "{}"),
        post("/v1/query", "not JSON"),
        post("/v1/query", r#"{"Name":"q"}"#),
        post("/v1/query", r#"{"Name":"q","Foo":1}"#),
        post("/v1/query", r#"{"ID":"q","Name":"q"}"#),
        post("/v1/query", r#"{"Service":{"Service":"web"}}"#),
        post("/v1/query", r#"{"Name":"q","Service":{"Service":"web"},"DNS":{"TTL":"x"}}"#),
        post("/v1/query", r#"{"Name":"q","Service":{"Service":"web"},"DNS":{"TTL":"-1s"}}"#),
        post("/v1/query", r#"{"Name":"q","Service":{"Service":"web","Failover":{"NearestN":-1}}}"#),
        post("/v1/query", r#"{"Name":"q","Token":"<hidden>","Service":{"Service":"web"}}"#),
        post("/v1/query", r#"{"Name":"q","Template":{"Type":"x"},"Service":{"Service":"web"}}"#),
        post("/v1/query", r#"{"Name":"q","Template":{"Type":"name_prefix_match"},"Service":{"Service":"${foo}"}}"#),
        post("/v1/query", r#"{"Name":"q","Template":{"Type":"name_prefix_match"},"Service":{"Service":"${match(0}"}}"#),
        get("/v1/query/nope"),
        get("/v1/query/nope/execute"),
        get("/v1/query/nope/explain"),
        get("/v1/query/nope/execute?limit=x"),
        get("/v1/query/nope/execute?connect=x"),
        put("/v1/query/nope", r#"{"Name":"q","Service":{"Service":"web"}}"#),
        put("/v1/query/nope/execute", ""),
        delete("/v1/query/nope"),
        delete("/v1/query"),
    ]
}

/// Events that are for this agent, for another one, and for nobody.
pub(crate) fn events() -> Vec<Step> {
    vec![
        get("/v1/event/list"),
        put("/v1/event/fire/deploy", "hello"),
        get("/v1/event/list").until("deploy"),
        put("/v1/event/fire/elsewhere?node=^other$", ""),
        put("/v1/event/fire/here?node=n1&service=web&tag=v1", ""),
        get("/v1/event/list").until("here"),
        get("/v1/event/list?name=here"),
        get("/v1/event/list?name=nobody"),
        get("/v1/event/list?index=x"),
        put("/v1/event/fire/", ""),
        put("/v1/event/fire/deploy?tag=a", ""),
        put("/v1/event/fire/deploy?node=(", ""),
        get("/v1/event/fire/deploy"),
        put("/v1/agent/force-leave/nowhere", ""),
    ]
}
