//! Wall-clock time as text: RFC 3339, always UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, to the second: `2026-11-21T00:49:02Z`.
pub(crate) fn rfc3339_now() -> String {
    format!("{}Z", seconds(since_epoch()))
}

/// Now, to the nanosecond: `2026-11-21T00:49:02.123456789Z`.
pub(crate) fn rfc3339_now_nanos() -> String {
    let now = since_epoch();
    format!("{}.{:09}Z", seconds(now), now.subsec_nanos())
}

fn since_epoch() -> Duration {
    // A clock before 1970 is a clock that was never set.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(since_epoch: Duration) -> String {
    let (days, second) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    // Howard Hinnant's civil_from_days: years start in March, so the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_1() {
        // `date -u -d @N +%FT%T`
        for (at, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_795_222_142, "2026-11-21T00:49:02"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(seconds(Duration::from_secs(at)), text);
        }
    }

    #[test]
    fn nanoseconds_have_nine_digits() {
        let now = rfc3339_now_nanos();
        assert_eq!(now.len(), "2026-11-21T00:49:02.123456789Z".len());
        assert!(now.ends_with('Z') && now.as_bytes()[19] == b'.');
        assert_eq!(rfc3339_now().len(), "2026-11-21T00:49:02Z".len());
    }
}
