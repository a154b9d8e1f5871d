//! Templates of prepared queries: what `${...}` in their texts stands for.
//!
//! `${name.full}`, `${name.prefix}`, `${name.suffix}`, `${agent.segment}`, `${match(N)}` and quoted texts; `$${` is `${`
//! itself. Of Consul's language that is all that its documentation speaks of; sums, conditions and string functions are
//! refused when the query is stored.
//!
//! Invariants
//! - Whether a template is taken is decided before the log, so that servers whose regular expressions are of two releases
//!   still agree.

use lictor_types::prepared_query::{NAME_PREFIX_MATCH, PreparedQuery, PreparedService};
use regex::{Regex, RegexBuilder};

/// Bytes of memory that a compiled expression may take.
const EXPRESSION_BYTES_MAX: usize = 256 * 1024;

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A variable, and the column it stands in, from 1.
    Variable(String, usize),
    Match(usize),
}

/// What the pieces stand for.
struct Values<'a> {
    full: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    matches: Vec<&'a str>,
}

/// Whether the query, which is a template, can be rendered at all; in Consul's words.
pub(crate) fn check(query: &PreparedQuery) -> Result<(), String> {
    if query.template.kind != NAME_PREFIX_MATCH {
        return Err(format!("Bad Template.Type '{}'", query.template.kind));
    }
    expression(&query.template.regexp)?;
    // The shortest name it will ever be asked by.
    render(query, &query.name).map(|_| ())
}

/// The query that a template is for `name`, which begins with its own.
pub(crate) fn render(query: &PreparedQuery, name: &str) -> Result<PreparedQuery, String> {
    let expression = expression(&query.template.regexp)?;
    let captures = expression.as_ref().and_then(|expression| expression.captures(name));
    let values = Values {
        full: name,
        prefix: &query.name,
        // Names are found whatever their case, so it is cut by length.
        suffix: name.get(query.name.len()..).unwrap_or_default(),
        matches: captures
            .iter()
            .flat_map(|captures| captures.iter().map(|found| found.map_or("", |found| found.as_str())))
            .collect(),
    };
    let mut rendered = query.clone();
    each_text(&mut rendered.service, &mut |path, text| {
        *text = evaluate(text, &values).map_err(|problem| match problem {
            Problem::Syntax(reason) => format!("Bad format '{text}' in Service{path}: {reason}"),
            Problem::Unknown(reason) => format!("Bad evaluation for '{text}' in Service{path}: {reason}"),
        })?;
        Ok(())
    })?;
    if query.template.remove_empty_tags {
        rendered.service.tags.retain(|tag| !tag.is_empty());
    }
    Ok(rendered)
}

fn expression(text: &str) -> Result<Option<Regex>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let built = RegexBuilder::new(text).size_limit(EXPRESSION_BYTES_MAX).build();
    built.map(Some).map_err(|error| {
        let words = error.to_string();
        let reason = words.rsplit("error: ").next().unwrap_or_default().trim();
        format!("Bad Regexp: error parsing regexp: {reason}: `{text}`")
    })
}

enum Problem {
    Syntax(&'static str),
    Unknown(String),
}

fn evaluate(text: &str, values: &Values<'_>) -> Result<String, Problem> {
    if !text.contains("${") {
        return Ok(text.to_owned());
    }
    let mut rendered = String::new();
    for piece in pieces(text).ok_or(Problem::Syntax("parse error: syntax error"))? {
        match piece {
            Piece::Text(text) => rendered.push_str(&text),
            Piece::Match(at) => rendered.push_str(values.matches.get(at).copied().unwrap_or_default()),
            Piece::Variable(name, column) => rendered.push_str(match name.as_str() {
                "name.full" => values.full,
                "name.prefix" => values.prefix,
                "name.suffix" => values.suffix,
                // There is one segment, and it has no name.
                "agent.segment" => "",
                other => return Err(Problem::Unknown(format!("1:{column}: unknown variable accessed: {other}"))),
            }),
        }
    }
    Ok(rendered)
}

fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        if text[at..start].ends_with('$') {
            plain.push_str(&text[at..start - 1]);
            plain.push_str("${");
            at = start + 2;
            continue;
        }
        plain.push_str(&text[at..start]);
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        let inside = start + 2;
        let end = end_of(&text[inside..])?;
        pieces.push(piece(&text[inside..inside + end], inside)?);
        at = inside + end + 1;
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Some(pieces)
}

/// Where the `}` is that ends an expression; one inside quotes does not.
fn end_of(text: &str) -> Option<usize> {
    let mut quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn piece(text: &str, before: usize) -> Option<Piece> {
    let column = before + (text.len() - text.trim_start().len()) + 1;
    let text = text.trim();
    if let Some(quoted) = text.strip_prefix('"') {
        let inner = quoted.strip_suffix('"')?;
        return (!inner.contains(['"', '\\'])).then(|| Piece::Text(inner.to_owned()));
    }
    if let Some(arguments) = text.strip_prefix("match") {
        let number = arguments.trim_start().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        if let Some(number) = number {
            return number.trim().parse().ok().map(Piece::Match);
        }
    }
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    text.split('.').all(is_name).then(|| Piece::Variable(text.to_owned(), column))
}

/// Visits every text of a query with where it stands.
fn each_text(
    service: &mut PreparedService,
    visit: &mut dyn FnMut(&str, &mut String) -> Result<(), String>,
) -> Result<(), String> {
    visit(".Service", &mut service.service)?;
    for (at, datacenter) in service.failover.datacenters.iter_mut().enumerate() {
        visit(&format!(".Failover.Datacenters[{at}]"), datacenter)?;
    }
    for (at, target) in service.failover.targets.iter_mut().enumerate() {
        visit(&format!(".Failover.Targets[{at}].Peer"), &mut target.peer)?;
        visit(&format!(".Failover.Targets[{at}].Datacenter"), &mut target.datacenter)?;
    }
    for (at, id) in service.ignore_check_ids.iter_mut().enumerate() {
        visit(&format!(".IgnoreCheckIDs[{at}]"), id)?;
    }
    visit(".Near", &mut service.near)?;
    for (at, tag) in service.tags.iter_mut().enumerate() {
        visit(&format!(".Tags[{at}]"), tag)?;
    }
    for (key, value) in &mut service.node_meta {
        visit(&format!(".NodeMeta[{key}]"), value)?;
    }
    for (key, value) in &mut service.service_meta {
        visit(&format!(".ServiceMeta[{key}]"), value)?;
    }
    visit(".Peer", &mut service.peer)
}

#[cfg(test)]
mod tests {
    use lictor_types::prepared_query::QueryTemplate;

    use super::*;

    fn query(name: &str, regexp: &str, service: &str, tags: &[&str]) -> PreparedQuery {
        PreparedQuery {
            name: name.into(),
            template: QueryTemplate { kind: NAME_PREFIX_MATCH.into(), regexp: regexp.into(), remove_empty_tags: false },
            service: PreparedService {
                service: service.into(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                ..PreparedService::default()
            },
            ..PreparedQuery::default()
        }
    }

    #[test]
    fn every_text_is_rendered() {
        let template = query("geo-", "^geo-(.*?)-([^-]+?)$", "${match(1)}", &["${match(2)}", "${ match(9) }", "x"]);
        let rendered = render(&template, "geo-db-primary").unwrap().service;
        assert_eq!((rendered.service.as_str(), rendered.tags.join("|")), ("db", "primary||x".into()));
        let template = query("geo-", "", "${name.suffix}", &["${name.full}+${name.prefix}", "$${name}${\"}\"}", "$x"]);
        let rendered = render(&template, "GEO-db").unwrap().service;
        assert_eq!(rendered.service, "db");
        assert_eq!(rendered.tags, ["GEO-db+geo-", "${name}}", "$x"]);
    }

    #[test]
    fn empty_tags_go_where_that_is_asked_for() {
        let mut template = query("a-", "", "x", &["${match(1)}", "b"]);
        template.template.remove_empty_tags = true;
        assert_eq!(render(&template, "a-b").unwrap().service.tags, ["b"]);
    }

    #[test]
    fn what_cannot_be_rendered_is_refused_in_consuls_words() {
        let refused = |query: PreparedQuery| check(&query).unwrap_err();
        assert_eq!(
            refused(query("t-", "", "${foo}", &[])),
            "Bad evaluation for '${foo}' in Service.Service: 1:3: unknown variable accessed: foo"
        );
        for text in ["${match(0}", "${", "${name.full", "${a b}", "${1 + 1}", "${match(x)}", "${upper(name.full)}"] {
            let refusal = refused(query("t-", "", text, &[]));
            assert_eq!(refusal, format!("Bad format '{text}' in Service.Service: parse error: syntax error"));
        }
        assert!(refused(query("t-", "(", "x", &[])).starts_with("Bad Regexp: error parsing regexp: unclosed group"));
        let mut other = query("t-", "", "x", &[]);
        other.template.kind = "x".into();
        assert_eq!(refused(other), "Bad Template.Type 'x'");
    }

    #[test]
    fn an_expression_that_wants_much_memory_is_refused() {
        assert!(check(&query("t-", "(((a{100}){100}){100})", "x", &[])).is_err());
    }
}
