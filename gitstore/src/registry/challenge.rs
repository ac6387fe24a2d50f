//! How a server asks for a login: the header `WWW-Authenticate` (RFC 9110).

/// One way to log in.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Challenge {
    /// With a user name and password.
    Basic,
    /// With a token of this service.
    Bearer {
        realm: String,
        service: String,
        scope: Option<String>,
    },
    Other,
}

/// The ways to log in that the value of the header `WWW-Authenticate` offers.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut all: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = value_of(value.trim_start());
            if let Some((_, parameters)) = all.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            all.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    all.into_iter().map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, mut parameters: Vec<(String, String)>) -> Challenge {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(known, _)| known == name)?;
        Some(parameters.swap_remove(at).1)
    };
    match scheme {
        "basic" => Challenge::Basic,
        "bearer" => Challenge::Bearer {
            realm: take("realm").unwrap_or_default(),
            service: take("service").unwrap_or_default(),
            scope: take("scope"),
        },
        _ => Challenge::Other,
    }
}

/// Splits a text into its first value, which is a word or a text in quotes, and the rest.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut chars) = (String::new(), quoted.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: &str, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.into(),
            scope: scope.map(Into::into),
        };
        for (header, expected) in [
            ("", vec![]),
            ("Basic", vec![Challenge::Basic]),
            ("basic realm=\"a, b\"", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.example.com/token\",service=\"registry\",scope=\"repository:a/b:pull\"",
                vec![bearer("https://auth.example.com/token", "registry", Some("repository:a/b:pull"))],
            ),
            ("Bearer realm = x , service=\"a\\\"b\"", vec![bearer("x", "a\"b", None)]),
            (
                "Negotiate, Basic realm=x, Bearer realm=y",
                vec![Challenge::Other, Challenge::Basic, bearer("y", "", None)],
            ),
            ("Bearer realm=\"cut", vec![bearer("cut", "", None)]),
            ("=,=\"", vec![]),
            ("a=b, Basic", vec![Challenge::Basic]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}
