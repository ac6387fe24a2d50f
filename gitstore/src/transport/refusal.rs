//! The text with which a server refuses a request, as far as it may be shown.
//!
//! The author of a Repository chooses the host and can read the status, and the controller may reach servers that this
//! person cannot. So the text is shown only where it helps: if it is plain text, if its status is one with which servers
//! explain a refusal, and if it comes from the Repository's own host.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use ureq::http::{HeaderValue, Response, header};
use zeroize::Zeroizing;

use super::presentable;
use crate::error::Refusal;

/// How many bytes of an answer are read. The status of a Repository shows fewer.
const BYTES: u64 = 2 << 10;
/// The statuses with which a server explains who may read, or when.
const EXPLAINED: [u16; 4] = [401, 403, 429, 503];
/// The longest pause that a server can ask for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Reads the reason of a refusal. The text is not repeated if it contains the credentials that were sent, or if it
/// comes from another host after a redirect (`own` is false).
pub(super) fn read(response: Response<ureq::Body>, sent: Option<&HeaderValue>, own: bool) -> Refusal {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let retry_after = header(header::RETRY_AFTER).and_then(|text| pause(text, Timestamp::now()));
    let kind = header(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let mut said = String::new();
    if own && EXPLAINED.contains(&status) && kind.starts_with("text/plain") {
        let mut bytes = Vec::new();
        // If the answer breaks off, the part before that is used.
        let _ = response.into_body().into_reader().take(BYTES).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        if !sent.is_some_and(|sent| shows(&text, sent)) {
            said = presentable(&text);
        }
    }
    Refusal { status, said, retry_after }
}

/// A user name with at least this many characters may be a token.
const TOKEN: usize = 12;

/// Whether a text contains what was sent, or the password in it, or a user name that may be a token; also if it is
/// encoded as in a URL or in HTML. Only letters and digits are compared, because encoding changes the other characters.
fn shows(text: &str, sent: &HeaderValue) -> bool {
    let sent = Zeroizing::new(String::from_utf8_lossy(sent.as_bytes()).into_owned());
    let token = sent.split_once(' ').map_or(sent.as_str(), |(_, token)| token);
    let pair = Zeroizing::new(STANDARD.decode(token).unwrap_or_default());
    let pair = Zeroizing::new(String::from_utf8_lossy(&pair).into_owned());
    let (name, password) = pair.split_once(':').unwrap_or_default();
    let name = if name.len() < TOKEN { "" } else { name };
    let written = [text.to_owned(), unescaped(text, "%", ""), unescaped(text, "&#x", ";"), unescaped(text, "&", ";")];
    let written = Zeroizing::new(written.map(|text| bare(&text)));
    [token, name, password].iter().any(|secret| {
        let bare = Zeroizing::new(bare(secret));
        let is_in = |text: &String| !bare.is_empty() && text.contains(bare.as_str());
        // If a secret has only punctuation, `bare` leaves nothing of it to search for. So the text is also searched for
        // the secret as it is.
        !secret.is_empty() && (text.contains(secret) || written.iter().any(is_in))
    })
}

fn bare(text: &str) -> String {
    text.chars().filter(|char| char.is_alphanumeric()).collect()
}

/// The text without encoded characters that begin with `begin`: two hexadecimal digits of a URL, or an entity of HTML
/// up to `end`.
fn unescaped(text: &str, begin: &str, end: &str) -> String {
    let mut parts = text.split(begin);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let skipped = if end.is_empty() { 2 } else { part.find(end).map_or(0, |at| at + end.len()) };
        plain.push_str(part.get(skipped..).unwrap_or_default());
    }
    plain
}

/// The pause that the header `Retry-After` asks for: as a number of seconds, or until a date.
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let pause = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let until = DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(until.duration_since(now)).ok()?
    };
    Some(pause.min(LONGEST)).filter(|pause| !pause.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_in_seconds_or_until_a_date_and_has_a_bound() {
        let now = "2015-10-21T07:27:00Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(60)),
            ("Wed, 21 Oct 2015 07:26:00 GMT", None),
            ("Wed, 21 Oct 2099 07:26:00 GMT", Some(3600)),
            ("99999999", Some(3600)),
            ("0", None),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(pause(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_repeated() {
        let basic = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode("me:hunter2"))).unwrap();
        assert!(shows("no hunter2 here", &basic));
        assert!(shows(&format!("bad header {}", STANDARD.encode("me:hunter2")), &basic));
        assert!(!shows("me may not read this", &basic));
        assert!(shows(STANDARD.encode("me:hunter2").trim_end_matches('='), &basic), "without padding");
        let hard =
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode("ghp_TOKENASUSER:p&ss w/rd=1?"))).unwrap();
        for text in [
            "token ghp_TOKENASUSER has no scope repo",
            "password=p%26ss%20w%2Frd%3D1%3F",
            "password=p%26ss%20w/rd%3D1%3F",
            "no &quot;p&amp;ss w/rd=1?&quot;",
            "no p&#x26;ss w&#x2f;rd=1?",
            "no p&#38;ss w/rd=1?",
        ] {
            assert!(shows(text, &hard), "{text}");
        }
        assert!(!shows("the password is wrong", &hard));
        let bearer = HeaderValue::from_static("Bearer token-5f2c");
        assert!(shows("token-5f2c has no scope", &bearer));
        assert!(!shows("the token has no scope", &bearer));
    }
}
