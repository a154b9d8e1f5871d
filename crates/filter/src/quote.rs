//! String literals, as Go reads them.

/// What a literal between double quotes means; `inner` is what stands between them. `None`: Go does not take it.
pub(crate) fn unquote(inner: &str) -> Option<String> {
    if !inner.contains('\\') {
        return (!inner.contains('\n')).then(|| inner.to_owned());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        match next {
            '\n' => return None,
            '\\' => escape(&mut rest, &mut bytes)?,
            plain => push(&mut bytes, plain),
        }
    }
    String::from_utf8(bytes).ok()
}

fn push(bytes: &mut Vec<u8>, character: char) {
    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let kind = rest.next()?;
    let byte = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => u8::try_from(digits(rest, 16, 2, 0)?).ok()?,
        '0'..='7' => u8::try_from(digits(rest, 8, 2, kind.to_digit(8)?)?).ok()?,
        'u' | 'U' => {
            let code = digits(rest, 16, if kind == 'u' { 4 } else { 8 }, 0)?;
            push(bytes, char::from_u32(code)?);
            return Some(());
        }
        _ => return None,
    };
    bytes.push(byte);
    Some(())
}

fn digits(rest: &mut std::str::Chars<'_>, radix: u32, count: usize, start: u32) -> Option<u32> {
    (0..count).try_fold(start, |sum, _| sum.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_read_as_go_reads_it() {
        for (inner, meaning) in [
            ("plain", Some("plain")),
            (r#"a\tb\\c\"d"#, Some("a\tb\\c\"d")),
            (r"\x41\u00e9\U0001F600\101", Some("Aé😀A")),
            (r"\xc3\xa9", Some("é")),
            (r"\xff", None),
            (r"\'", None),
            (r"\q", None),
            (r"\x4", None),
            (r"\ud800", None),
            (r"\777", None),
            ("a\nb", None),
            (r"end\", None),
        ] {
            assert_eq!(unquote(inner).as_deref(), meaning, "{inner}");
        }
    }
}
