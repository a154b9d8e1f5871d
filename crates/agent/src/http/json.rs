//! Consul's JSON as Go writes it: `<`, `>`, `&` and the two line separators escaped, four spaces when pretty.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// The JSON of `value`.
///
/// # Errors
/// The value has a map with keys that are not text.
pub(super) fn to_bytes<T: Serialize + ?Sized>(value: &T, pretty: bool) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    if pretty {
        let formatter = GoFormatter(PrettyFormatter::with_indent(b"    "));
        value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    } else {
        value.serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter(CompactFormatter)))?;
    }
    Ok(bytes)
}

/// Go's escapes over the layout of another formatter.
struct GoFormatter<F>(F);

macro_rules! layout {
    ($($method:ident($($argument:ident: $kind:ty),*)),* $(,)?) => {
        $(fn $method<W: ?Sized + Write>(&mut self, writer: &mut W $(, $argument: $kind)*) -> io::Result<()> {
            self.0.$method(writer $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    layout! {
        begin_array(), end_array(), begin_array_value(first: bool), end_array_value(),
        begin_object(), end_object(), begin_object_key(first: bool), end_object_key(),
        begin_object_value(), end_object_value(),
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let bytes = fragment.as_bytes();
        let mut written = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let (escape, length) = match byte {
                b'<' => (&b"\\u003c"[..], 1),
                b'>' => (&b"\\u003e"[..], 1),
                b'&' => (&b"\\u0026"[..], 1),
                0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => (&b"\\u2028"[..], 3),
                0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => (&b"\\u2029"[..], 3),
                _ => continue,
            };
            writer.write_all(&bytes[written..at])?;
            writer.write_all(escape)?;
            written = at + length;
        }
        writer.write_all(&bytes[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_go_does() {
        let written = to_bytes("a<b>&\u{2028}é\u{2029}\n", false).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), r#""a\u003cb\u003e\u0026\u2028é\u2029\n""#);
    }

    #[test]
    fn pretty_is_four_spaces() {
        let value = std::collections::BTreeMap::from([("b", vec![1]), ("a", vec![])]);
        let written = to_bytes(&value, true).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "{\n    \"a\": [],\n    \"b\": [\n        1\n    ]\n}");
    }
}
