//! Durations as Go writes them: `"10s"`, `"1m30s"`, `"250ms"`.

use std::time::Duration;

/// Reads a Go duration. A bare number is refused, as Go refuses it, except `0`.
///
/// # Errors
/// Says what is wrong in the text and shows a right one.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration {text:?}: write a number with a unit, for example \"10s\" or \"1m30s\"");
    let rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = rest;
    let mut nanos = 0f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| at + digits);
        let factor = match &rest[digits..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        nanos += number * factor;
        rest = &rest[unit_end..];
    }
    if nanos > i64::MAX as f64 {
        return Err(format!("invalid duration {text:?}: longer than 292 years"));
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// Writes a duration as Go's `Duration.String` does: `10s`, `1m0s`, `1h0m0s`, `1.5s`, `250ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let (whole, part) = (value / unit, value % unit);
        if part == 0 {
            whole.to_string()
        } else {
            let width = unit.ilog10() as usize;
            format!("{whole}.{}", format!("{part:0width$}").trim_end_matches('0'))
        }
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match minutes {
                0 => format!("{seconds}s"),
                1..60 => format!("{minutes}m{seconds}s"),
                _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    }
}

/// Serde: a duration as Go text, or a number of nanoseconds when reading; absent, `""` and null are `None`.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Nanos(u64),
        Text(String),
    }

    /// Writes the text, `""` for none.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration.map(super::format).unwrap_or_default())
    }

    /// Reads text or nanoseconds.
    ///
    /// # Errors
    /// The text is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        match Option::<Raw>::deserialize(deserializer)? {
            None => Ok(None),
            Some(Raw::Nanos(0)) => Ok(None),
            Some(Raw::Nanos(nanos)) => Ok(Some(Duration::from_nanos(nanos))),
            Some(Raw::Text(text)) if text.is_empty() => Ok(None),
            Some(Raw::Text(text)) => super::parse(&text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [("10s", 10_000), ("1m30s", 90_000), ("250ms", 250), ("1.5h", 5_400_000), ("0", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1x", "1s2", "-1s", "abc"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (millis, text) in
            [(10_000, "10s"), (60_000, "1m0s"), (3_600_000, "1h0m0s"), (1_500, "1.5s"), (250, "250ms"), (0, "0s")]
        {
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
        assert_eq!(format(Duration::from_micros(1_500)), "1.5ms");
    }
}
