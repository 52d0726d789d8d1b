//! A length of time as Go spells it (`time.ParseDuration`): engines send `--interval=5s`.

use std::time::Duration;

use anyhow::{Result, bail};

/// Nanoseconds of each unit, the longer names first.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Parses one that is greater than zero.
pub(super) fn parse(text: &str) -> Result<Duration> {
    let Some(nanoseconds) = nanoseconds(text) else {
        bail!("expected a duration such as 300ms, 5s or 1m30s");
    };
    if nanoseconds < 1.0 {
        bail!("duration interval must be greater than 0");
    }
    match Duration::try_from_secs_f64(nanoseconds / 1e9) {
        Ok(duration) => Ok(duration),
        Err(_) => bail!("expected a duration that is shorter than centuries"),
    }
}

/// A sign, then numbers with a unit each; `0` needs none.
fn nanoseconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum += number.parse::<f64>().ok()? * factor;
        parts += 1;
        rest = tail;
    }
    (parts > 0).then_some(sign * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_it() {
        for (text, milliseconds) in
            [("5s", 5000), ("1m30s", 90_000), ("300ms", 300), ("1.5h", 5_400_000), ("+1s", 1000), ("2000us", 2)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        assert_eq!(parse("7ns").unwrap(), Duration::from_nanos(7));
        assert_eq!(parse("1µs").unwrap(), Duration::from_micros(1));
    }

    #[test]
    fn nothing_and_less() {
        for text in ["0", "0s", "-1s", "-0", "0.1ns"] {
            assert_eq!(parse(text).unwrap_err().to_string(), "duration interval must be greater than 0", "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in ["", "5", "s", "-", "5x", "1.2.3s", "5 s", "1s2", ".s", "1e3s"] {
            assert!(parse(text).unwrap_err().to_string().starts_with("expected a duration such as"), "{text}");
        }
        assert!(parse("999999999999999999999h").is_err());
    }
}
