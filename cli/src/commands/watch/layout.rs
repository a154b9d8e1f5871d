//! JSON in another layout, its keys in their order.

use serde_json::value::RawValue;

/// On one line, without spaces.
pub(super) fn compact(json: &RawValue) -> String {
    lay_out(json.get(), None)
}

/// On many lines, four spaces deeper at each level.
pub(super) fn indented(json: &str) -> String {
    lay_out(json, Some("    "))
}

/// The text must be valid JSON.
fn lay_out(json: &str, indentation: Option<&str>) -> String {
    let mut shown = String::with_capacity(json.len());
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let new_line = |shown: &mut String, depth: usize| {
        if let Some(indentation) = indentation {
            shown.push('\n');
            shown.extend(std::iter::repeat_n(indentation, depth));
        }
    };
    let mut rest = json.chars();
    // Spaces count in texts and nowhere else.
    while let Some(character) = if quoted { rest.next() } else { rest.by_ref().find(|c| !c.is_whitespace()) } {
        if quoted {
            shown.push(character);
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                shown.push(character);
                let next = rest.clone().find(|c| !c.is_whitespace());
                if !matches!(next, Some('}' | ']')) {
                    depth += 1;
                    new_line(&mut shown, depth);
                }
            }
            '}' | ']' => {
                if !matches!(shown.chars().last(), Some('{' | '[')) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut shown, depth);
                }
                shown.push(character);
            }
            ',' => {
                shown.push(',');
                new_line(&mut shown, depth);
            }
            ':' => shown.push_str(if indentation.is_some() { ": " } else { ":" }),
            '"' => {
                shown.push('"');
                quoted = true;
            }
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_texts_moves() {
        let text = r#"{"b" : [ 1, {} , "a \" [ x,y ]\\"], "a":{ "n":null } }"#;
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        let one_line = r#"{"b":[1,{},"a \" [ x,y ]\\"],"a":{"n":null}}"#;
        assert_eq!(compact(&raw), one_line);
        let many = "{\n    \"b\": [\n        1,\n        {},\n        \"a \\\" [ x,y ]\\\\\"\n    ],\n    \"a\": {\n        \"n\": null\n    }\n}";
        assert_eq!(indented(one_line), many);
        assert_eq!(indented("[ ]"), "[]");
    }
}
