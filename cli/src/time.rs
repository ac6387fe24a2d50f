//! Durations in the form in which people write and read them.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Reads `30d`, `12h`, `5m30s`; a day has 24 hours.
///
/// # Errors
/// The text is not a duration, or it has months or years, whose length depends on the calendar.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|_| "expected a duration such as 90s, 5m, 12h or 30d".to_owned())?;
    let duration =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| "use days, hours, minutes or seconds")?;
    if duration.is_negative() { Err("a duration cannot be negative".into()) } else { Ok(duration) }
}

/// The duration in its two largest units, for example `3d4h` or `42s`.
pub fn short(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) if minutes < 10 && seconds % 60 > 0 => {
            format!("{minutes}m{}s", seconds % 60)
        }
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, 0) => format!("{hours}h"),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, 0, _) => format!("{days}d"),
        (days, hours, _) if days < 10 => format!("{days}d{hours}h"),
        (days, ..) => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("30d"), Ok(SignedDuration::from_hours(720)));
        assert_eq!(parse_duration("5m30s"), Ok(SignedDuration::from_secs(330)));
        assert_eq!(parse_duration("0s"), Ok(SignedDuration::ZERO));
        for wrong in ["", "30", "soon", "1y", "-5m"] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was read");
        }
    }

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (3_600, "1h"),
            (5_400, "1h30m"),
            (90_000, "1d1h"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(short(SignedDuration::from_secs(seconds)), text);
        }
    }
}
