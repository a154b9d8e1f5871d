//! HCL 1, the language of Consul's files, into JSON values.
//!
//! The crates for HCL read HCL 2, which refuses what people have in their files: several items on one line of a block,
//! blocks in blocks on one line, commas between items, quoted keys, and `${` in texts. The language is small:
//!
//! ```text
//! items  = { key { key } ( "=" value | "{" items "}" ) [ "," ] }
//! value  = text | heredoc | number | true | false | "[" { value [ "," ] } "]" | "{" items "}"
//! ```
//!
//! A block that comes several times becomes a list of objects, as does a second object under the same key.

use serde_json::{Map, Number, Value};

/// How deep objects and lists may be in each other.
const DEPTH_MAX: usize = 32;

/// Reads `text`.
///
/// # Errors
/// Says in which line what was expected.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text, line: 1, depth: 0 };
    let items = parser.items(None)?;
    Ok(Value::Object(items))
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    depth: usize,
}

impl Parser<'_> {
    fn wrong<T>(&self, expected: &str) -> Result<T, String> {
        let found: String = self.rest.chars().take(20).take_while(|c| *c != '\n').collect();
        let found = if found.is_empty() { "the end of the line".into() } else { format!("{found:?}") };
        Err(format!("line {}: {expected} is expected, not {found}", self.line))
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    /// Passes over white space and comments.
    fn skip(&mut self) -> Result<(), String> {
        loop {
            let blank =
                self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len();
            self.advance(blank);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.advance(end);
            } else if self.rest.starts_with("/*") {
                let Some(end) = self.rest.find("*/") else { return self.wrong("the end of the comment, */,") };
                self.advance(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn take(&mut self, token: char) -> Result<bool, String> {
        self.skip()?;
        let found = self.rest.starts_with(token);
        if found {
            self.advance(token.len_utf8());
        }
        Ok(found)
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(format!("line {}: more than {DEPTH_MAX} levels deep", self.line))
        } else {
            Ok(())
        }
    }

    /// Items up to `end`, or up to the end of the text.
    fn items(&mut self, end: Option<char>) -> Result<Map<String, Value>, String> {
        self.deeper()?;
        let mut items = Map::new();
        loop {
            self.skip()?;
            match end {
                None if self.rest.is_empty() => break,
                Some(end) if self.take(end)? => break,
                _ => {}
            }
            let key = self.key()?;
            let value = self.item()?;
            put(&mut items, key, value);
            self.take(',')?;
        }
        self.depth -= 1;
        Ok(items)
    }

    /// What follows the first key: further keys are levels of their own, as in `service "web" { }`.
    fn item(&mut self) -> Result<Value, String> {
        if self.take('=')? {
            return self.value();
        }
        if self.take('{')? {
            return Ok(Value::Object(self.items(Some('}'))?));
        }
        if !self.rest.starts_with(|c: char| c == '"' || is_name(c)) {
            return self.wrong("= or {");
        }
        let key = self.key()?;
        self.deeper()?;
        let value = self.item()?;
        self.depth -= 1;
        Ok(Value::Object(Map::from_iter([(key, value)])))
    }

    fn key(&mut self) -> Result<String, String> {
        self.skip()?;
        if self.rest.starts_with('"') {
            return self.text();
        }
        let end = self.rest.find(|c: char| !is_name(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return self.wrong("a key");
        }
        let key = self.rest[..end].to_owned();
        self.advance(end);
        Ok(key)
    }

    fn value(&mut self) -> Result<Value, String> {
        self.skip()?;
        if self.rest.starts_with('"') {
            return self.text().map(Value::from);
        }
        if self.rest.starts_with("<<") {
            return self.heredoc().map(Value::from);
        }
        if self.take('{')? {
            return Ok(Value::Object(self.items(Some('}'))?));
        }
        if self.take('[')? {
            return self.list();
        }
        let end = self.rest.find(|c: char| !is_name(c) && c != '+').unwrap_or(self.rest.len());
        let value = match &self.rest[..end] {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => match number(word) {
                Some(number) => Value::Number(number),
                None => return self.wrong("a text in quotes, a number, true, false, [ or {"),
            },
        };
        self.advance(end);
        Ok(value)
    }

    fn list(&mut self) -> Result<Value, String> {
        self.deeper()?;
        let mut values = Vec::new();
        while !self.take(']')? {
            values.push(self.value()?);
            if !self.take(',')? && !self.rest.starts_with(']') {
                return self.wrong(", or ]");
            }
        }
        self.depth -= 1;
        Ok(Value::Array(values))
    }

    fn text(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.advance(at + 1);
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(escaped @ ('"' | '\\' | '/')) => text.push(escaped),
                    Some('u') => {
                        let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        let Some(code) = code else { return self.wrong("a text with \\u and four hexadecimal digits") };
                        text.push(code);
                    }
                    _ => return self.wrong("a text with \\n, \\t, \\r, \\\", \\\\ or \\u as its only escapes"),
                },
                other => text.push(other),
            }
        }
        self.wrong("a text that ends in \" on its line")
    }

    /// `<<WORD` or `<<-WORD`, lines, and `WORD` on a line of its own.
    fn heredoc(&mut self) -> Result<String, String> {
        let indented = self.rest.starts_with("<<-");
        let start = if indented { 3 } else { 2 };
        let Some(first) = self.rest.find('\n') else { return self.wrong("lines after <<") };
        let word = self.rest[start..first].trim().to_owned();
        let body = &self.rest[first + 1..];
        let mut lines = Vec::new();
        let mut length = first + 1;
        for line in body.split_inclusive('\n') {
            if line.trim() == word {
                self.advance(length + line.trim_end_matches(['\n', '\r']).len());
                let indent = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
                let cut = if indented { lines.iter().map(indent).min().unwrap_or(0) } else { 0 };
                return Ok(lines.iter().map(|line| &line[cut.min(line.len())..]).collect());
            }
            length += line.len();
            lines.push(line);
        }
        self.wrong(&format!("{word} on a line of its own"))
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '$')
}

fn number(word: &str) -> Option<Number> {
    match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok().map(Number::from),
        None => word.parse::<i64>().ok().map(Number::from).or_else(|| Number::from_f64(word.parse().ok()?)),
    }
}

/// Adds an item. Several objects of one name become a list; of several scalars the last counts.
fn put(items: &mut Map<String, Value>, key: String, value: Value) {
    match (items.get_mut(&key), value) {
        (Some(Value::Array(there)), value @ Value::Object(_)) => there.push(value),
        (Some(Value::Array(there)), Value::Array(more)) => there.extend(more),
        (Some(there @ Value::Object(_)), value @ Value::Object(_)) => {
            *there = Value::Array(vec![there.take(), value]);
        }
        (_, value) => {
            items.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_have_in_their_files_is_read() {
        for (text, value) in [
            ("a = 1 b = \"x\" # note\n// note\n/* note\n */ c = true", json!({"a": 1, "b": "x", "c": true})),
            (
                "acl { enabled = true, tokens { agent = \"t\" } }",
                json!({"acl": {"enabled": true, "tokens": {"agent": "t"}}}),
            ),
            (
                "acl = { enabled = true\n default_policy = \"deny\" }",
                json!({"acl": {"enabled": true, "default_policy": "deny"}}),
            ),
            ("service { name = \"a\" }\nservice { name = \"b\" }", json!({"service": [{"name": "a"}, {"name": "b"}]})),
            ("service \"web\" { port = 80 }", json!({"service": {"web": {"port": 80}}})),
            ("\"ports\" { \"http\" = -1 }", json!({"ports": {"http": -1}})),
            (
                "l = [\"a\", \"b\",]\nm = [\n{ x = 1 },\n{ x = 2 }\n]",
                json!({"l": ["a", "b"], "m": [{"x": 1}, {"x": 2}]}),
            ),
            ("a = \"q\\\"\\n\\u00e4 ${x}\"", json!({"a": "q\"\nä ${x}"})),
            (
                "a = <<EOF\none\n  two\nEOF\nb = <<-END\n    one\n      two\n    END\n",
                json!({"a": "one\n  two\n", "b": "one\n  two\n"}),
            ),
            ("a = 1.5 b = 0x10", json!({"a": 1.5, "b": 16})),
            ("", json!({})),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, complaint) in [
            ("a = 1\nb = ", "line 2: a text in quotes"),
            ("a {\n b = 1\n", "a key is expected"),
            ("a = \"x\ny\"", "line 1: a text that ends in \""),
            ("a = [1 2]", ", or ] is expected, not \"2]\""),
            ("= 1", "line 1: a key is expected"),
            ("a", "= or { is expected"),
            ("/* x", "the end of the comment"),
            ("a = <<X\none", "X on a line of its own"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(complaint), "{text:?}: {error}");
        }
        let deep = "a { ".repeat(100);
        assert!(parse(&deep).unwrap_err().contains("levels deep"));
        assert!(parse(&format!("a = {}", "[".repeat(100_000))).unwrap_err().contains("levels deep"));
    }
}
