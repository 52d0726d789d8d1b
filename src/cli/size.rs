//! A number of bytes as runc's options take it: a number, a binary suffix of any case, and perhaps `iB` or `B`.

use anyhow::{Result, bail};

/// Parses one; -1 is unlimited.
pub(super) fn parse(text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    match bytes(text) {
        Some(bytes) => Ok(bytes),
        None => bail!("invalid size: expected bytes with or without a suffix k, m, g, t or p, or -1"),
    }
}

fn bytes(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let shift = match suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix) {
        "" if suffix != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    // Exact for whole numbers, which are nearly all.
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift);
    }
    let exact = number.parse::<f64>().ok()? * f64::from(1_u32 << (shift / 2)) * f64::from(1_u32 << (shift - shift / 2));
    #[allow(clippy::cast_possible_truncation)] // in range by the comparison
    (exact < 9.2e18).then_some(exact as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32 KB", 32 << 10),
            ("32KiB", 32 << 10),
            ("32M", 32 << 20),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            ("9223372036854775807", i64::MAX),
            ("-1", -1),
        ] {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size() {
        for text in ["", "x", "2x", "-2", "k", "1.2.3", "9223372036854775808", "99999999p", "1kk", "1ib", "1 k b", "."]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
