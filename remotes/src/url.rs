//! Parts of the URLs of repositories, registries and chart repositories.

/// How the URL of a repository of artifacts begins. A registry is asked over https.
pub const OCI: &str = "oci://";
/// How the URL of a chart in a chart repository begins; see [`chart_url`].
pub const CHARTS: &str = "charts+";
/// The most bytes of a chart's name.
const CHART_BYTES: usize = 250;

/// The URL by which a store knows a chart of the chart repository at `url`.
pub fn chart_url(url: &str, chart: &str) -> String {
    format!("{CHARTS}{url}#{chart}")
}

/// Whether this can be the name of a chart.
pub fn is_chart_name(name: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= CHART_BYTES && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(is_inside)
}

/// A text that is not a usable URL, in a form that can be shown: without anything that may be a password. A password may
/// contain any character, so everything up to the last `@` is removed. The query is removed, too, because it may have a
/// token.
pub fn redact(text: &str) -> String {
    let scheme = scheme_of(text).unwrap_or_default();
    let rest = text[scheme.len()..].trim_start_matches("://");
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    let (rest, query) = rest.split_once(['?', '#']).map_or((rest, ""), |(rest, _)| (rest, "?…"));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{hidden}{rest}{query}")
}

/// The text before `://`, if it can be the name of a scheme.
pub fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_name = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_name.then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_no_url_that_is_shown_which_can_be_no_password() {
        for (text, shown) in [
            ("https://example.com:99999/a", "https://example.com:99999/a"),
            ("https://me:pa/ss@example.com/a", "https://…@example.com/a"),
            ("https://example.com/a?token=x", "https://example.com/a?…"),
            ("me:pa@example.com:a", "…@example.com:a"),
            ("me:pa://ss@example.com", "…@example.com"),
            ("", ""),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
