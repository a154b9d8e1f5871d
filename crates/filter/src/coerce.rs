//! Values of the expression as the field's type: Go's `strconv`, its words included.

/// The base and the digits of a number that Go reads with base 0.
fn base(text: &str) -> (u32, &str) {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    match lower.as_deref() {
        Some("0x") => (16, &text[2..]),
        Some("0b") => (2, &text[2..]),
        Some("0o") => (8, &text[2..]),
        _ if text.len() > 1 && text.starts_with('0') => (8, &text[1..]),
        _ => (10, text),
    }
}

fn failed(function: &str, text: &str, why: &str) -> String {
    format!("strconv.{function}: parsing {text:?}: {why}")
}

fn magnitude(function: &str, text: &str, unsigned: &str) -> Result<u64, String> {
    let (base, digits) = base(unsigned);
    // An underscore may stand between digits where a prefix names the base.
    let clean = if base == 10 { digits.to_owned() } else { digits.replace('_', "") };
    if clean.is_empty() || !clean.chars().all(|digit| digit.is_digit(base)) {
        return Err(failed(function, text, "invalid syntax"));
    }
    u64::from_str_radix(&clean, base).map_err(|_| failed(function, text, "value out of range"))
}

/// Go's `ParseInt(text, 0, 64)`.
pub(crate) fn integer(text: &str) -> Result<i64, String> {
    const FUNCTION: &str = "ParseInt";
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = i128::from(magnitude(FUNCTION, text, unsigned)?);
    i64::try_from(if is_negative { -magnitude } else { magnitude })
        .map_err(|_| failed(FUNCTION, text, "value out of range"))
}

/// Go's `ParseUint(text, 0, 64)`.
pub(crate) fn unsigned(text: &str) -> Result<u64, String> {
    magnitude("ParseUint", text, text)
}

/// Go's `ParseFloat(text, 64)`.
pub(crate) fn float(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| failed("ParseFloat", text, "invalid syntax"))
}

/// Go's `ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(failed("ParseBool", text, "invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_truth_are_read_as_go_reads_them() {
        assert_eq!(integer("-42"), Ok(-42));
        assert_eq!(integer("0x1F"), Ok(31));
        assert_eq!(integer("0b101"), Ok(5));
        assert_eq!(integer("017"), Ok(15));
        assert_eq!(integer("0"), Ok(0));
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(
            integer("9223372036854775808"),
            Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range".into())
        );
        assert_eq!(integer("x"), Err("strconv.ParseInt: parsing \"x\": invalid syntax".into()));
        assert!(integer("").is_err() && integer("--1").is_err() && integer("é").is_err());
        assert_eq!(unsigned("18446744073709551615"), Ok(u64::MAX));
        assert!(unsigned("-1").is_err());
        assert_eq!(boolean("T"), Ok(true));
        assert_eq!(boolean("yes"), Err("strconv.ParseBool: parsing \"yes\": invalid syntax".into()));
        assert_eq!(float("1.5"), Ok(1.5));
    }
}
