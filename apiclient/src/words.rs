//! Errors of the library `kube` in plain words. The library's own texts contain Rust types and say the same thing
//! twice.

use std::error::Error;

use kube::runtime::watcher;

use crate::NoConnection;

/// Why a watch ended.
pub fn of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("listing: {}", of(error)),
        watcher::Error::WatchStartFailed(error) => format!("beginning to watch: {}", of(error)),
        watcher::Error::WatchError(status) if !status.message.is_empty() => status.message.clone(),
        watcher::Error::WatchError(status) => format!("the API server answered with status {}", status.code),
        watcher::Error::WatchFailed(error) => of(error),
        watcher::Error::NoResourceVersion => "the API server's answer has no resource version".into(),
    }
}

/// Why a request failed.
pub fn of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered with status {}", status.code),
        kube::Error::Service(source) => {
            let why = innermost(source.as_ref());
            match source.downcast_ref::<NoConnection>() {
                Some(named) => format!("{named}: {why}"),
                None => format!("no connection: {why}"),
            }
        }
        kube::Error::HyperError(source) => format!("no connection: {}", innermost(source)),
        kube::Error::ReadEvents(source) => format!("the connection broke: {}", innermost(source)),
        other => other.to_string(),
    }
}

/// The text of the innermost error. The errors around this one often only repeat its text.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn no_type_of_rust_is_shown() {
        let status = Status { code: 410, message: "too old resource version: 1".into(), ..Status::default() };
        let api = || kube::Error::Api(Box::new(status.clone()));
        for error in [
            watcher::Error::InitialListFailed(api()),
            watcher::Error::WatchStartFailed(api()),
            watcher::Error::WatchFailed(api()),
            watcher::Error::WatchError(Box::new(status.clone())),
        ] {
            let text = of_watch(&error);
            assert!(text.ends_with("too old resource version: 1"), "{text}");
            assert!(!text.contains("Status") && !text.contains("ApiError") && !text.contains('{'), "{text}");
        }
        let broken = std::io::Error::other("connection reset by peer");
        assert_eq!(of(&kube::Error::ReadEvents(broken)), "the connection broke: connection reset by peer");
    }
}
