use std::fs;

use super::*;

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: a, user: alice, namespace: shop}}
- {name: two, context: {cluster: b, user: bob}}
clusters:
- {name: a, cluster: {server: 'https://a:6443', certificate-authority-data: QQ==, tls-server-name: a.example}}
- {name: b, cluster: {server: 'https://b:6443'}}
users:
- {name: alice, user: {token: ta}}
- {name: bob, user: {token: tb}}
";

/// The settings that result from [`KUBECONFIG`] and these flags.
fn chosen(arguments: &[&str]) -> anyhow::Result<Chosen> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config");
    fs::write(&file, KUBECONFIG)?;
    let mut all = vec![format!("--kubeconfig={}", file.display())];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let flags = Flags::read(all, |_| None).expect("flags");
    let flags = ClusterFlags::new(&flags);
    flags.chosen(&flags.kubeconfig()?)
}

fn server(arguments: &[&str]) -> String {
    chosen(arguments).unwrap().cluster.server.unwrap()
}

#[test]
fn flags_choose_context_cluster_and_user() {
    assert_eq!(server(&[]), "https://a:6443");
    assert_eq!(server(&["--context=two"]), "https://b:6443");
    assert_eq!(server(&["--cluster=b"]), "https://b:6443");
    assert_eq!(server(&["--server=https://c", "--cluster=b"]), "https://c");
    assert_eq!(chosen(&[]).unwrap().namespace.as_deref(), Some("shop"));
    assert_eq!(chosen(&["--context=two"]).unwrap().namespace, None);
    for (arguments, message) in [
        (["--context=x"], "context \"x\" does not exist"),
        (["--cluster=x"], "cluster \"x\" does not exist"),
        (["--user=x"], "auth info \"x\" does not exist"),
    ] {
        assert_eq!(chosen(&arguments).err().unwrap().to_string(), message);
    }
}

#[test]
fn flags_take_the_place_of_what_the_kubeconfig_says() {
    let kept = chosen(&[]).unwrap().cluster;
    assert_eq!(kept.tls_server_name.as_deref(), Some("a.example"));
    let other = chosen(&["--server=https://c", "--insecure-skip-tls-verify"]).unwrap().cluster;
    assert_eq!((other.tls_server_name, other.certificate_authority_data), (None, None));
    assert_eq!(other.insecure_skip_tls_verify, Some(true));
    let other = chosen(&["--certificate-authority=ca.pem"]).unwrap().cluster;
    assert_eq!((other.certificate_authority.as_deref(), other.certificate_authority_data), (Some("ca.pem"), None));
    let user = chosen(&["--as=carol", "--as-group=x", "--as-group=y", "--username=u"]).unwrap().user;
    assert_eq!(user.impersonate.as_deref(), Some("carol"));
    assert_eq!(user.impersonate_groups.unwrap(), ["x", "y"]);
    assert_eq!(user.username.as_deref(), Some("u"));
}

#[tokio::test]
async fn credentials_stay_away_from_plain_connections() {
    let config = chosen(&["--server=http://127.0.0.1:1"]).unwrap().into_config().await.unwrap();
    assert!(config.auth_info.token.is_none());
    let config = chosen(&["--context=two"]).unwrap().into_config().await.unwrap();
    assert!(config.auth_info.token.is_some());
}

#[test]
fn no_cluster_at_all_is_said_as_kubectl_says_it() {
    let flags = Flags::read(["--kubeconfig=/dev/null".to_owned()], |_| None).expect("flags");
    let flags = ClusterFlags::new(&flags);
    let error = flags.chosen(&Kubeconfig::default()).err().unwrap();
    assert_eq!(error.to_string(), NO_CONFIG);
}

#[test]
fn timeouts_are_read_like_kubectl_s() {
    for (text, seconds) in [("0", None), ("5", Some(5)), ("1m30s", Some(90)), ("2h", Some(7200))] {
        assert_eq!(timeout(text).unwrap(), seconds.map(Duration::from_secs), "{text}");
    }
    for text in ["x", "-1s", "1 parsec"] {
        assert!(timeout(text).unwrap_err().to_string().starts_with("Invalid timeout value."), "{text}");
    }
}
