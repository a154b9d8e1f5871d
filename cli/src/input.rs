//! Data that a command is given: on the command line, in a file, or on the standard input.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::output::Failure;

/// The largest input that is read: a value in the store is far smaller, a config entry too.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads a whole file.
///
/// # Errors
/// It cannot be read, or is too large.
pub(crate) fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    let opened = std::fs::File::open(path).map_err(Failure::because("Failed to read file"))?;
    limited(opened).map_err(Failure::because("Failed to read file"))
}

/// Reads the standard input to its end.
///
/// # Errors
/// It cannot be read, or is too large.
pub(crate) fn standard_input() -> Result<Vec<u8>, Failure> {
    limited(std::io::stdin().lock()).map_err(Failure::because("Failed to read stdin"))
}

fn limited(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(format!("more than {INPUT_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// Reads a file, or the standard input for `-`, as HCL or JSON. Text that begins with `{` is JSON.
///
/// # Errors
/// It cannot be read, or is neither.
pub(crate) fn structured(source: &str) -> Result<Value, Failure> {
    let bytes = if source == "-" { standard_input()? } else { file(Path::new(source))? };
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(format!("{source} is not UTF-8 text")))?;
    parse(&text).map_err(|reason| Failure::new(format!("{source}: {reason}")))
}

fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with(['{', '[']) {
        serde_json::from_str(text).map_err(|error| format!("invalid JSON: {error}"))
    } else {
        lictor_agent::config::hcl::parse(text).map_err(|error| format!("invalid HCL: {error}"))
    }
}

/// The value of a key, however its letters are written.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The text of a key, however its letters are written; empty when it is not there.
pub(crate) fn text_field<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_hcl_say_the_same() {
        let json = parse("{\"Kind\": \"service-intentions\", \"Sources\": [{\"Name\": \"web\"}]}").unwrap();
        let hcl = parse("Kind = \"service-intentions\"\nSources = [{ Name = \"web\" }]\n").unwrap();
        assert_eq!(json, hcl);
        assert_eq!(text_field(&json, "kind"), "service-intentions");
        assert!(parse("{\"a\":").unwrap_err().contains("invalid JSON"));
        assert!(parse("a = ").unwrap_err().contains("invalid HCL"));
    }
}
