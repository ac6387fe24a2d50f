//! Runs a test in its own network namespace, in which the API server can connect to the address of a Pod.
//!
//! The API server's service proxy connects only to addresses of Pods, and never to loopback addresses. Tests have no
//! Pods, so they need an address that exists only for them, and therefore a network of their own. A process cannot
//! enter a network namespace without `unsafe`, so the test binary starts itself again in a new one, for this one test.
//! No root is needed.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use localcluster::{Output, parts, spawn_supervised};

use crate::programs;

/// The address of every Pod in the network namespace. There are no connections to or from the outside.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// This environment variable is set for a program that runs in its own namespace. For a test binary, the value is the path
/// of a file; the test binary creates it to show that it ran the test.
const INSIDE: &str = "GITSEAL_TEST_NETWORK";

/// How long a test or a program may take in the namespace. The limits inside of tests are much shorter.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs the body of a test in its own network namespace. Everything that runs in the namespace ends with the test.
///
/// # Errors
/// The body failed: the result is the error of the body and what the body printed. Or this machine cannot make such
/// namespaces: the error says why.
///
/// # Caveats
/// The name of the test is taken from the type name of the body. So call this directly in a `#[test]` function, with a
/// closure.
pub fn of_its_own<F: AsyncFnOnce() -> Result<()>>(body: F) -> Result<()> {
    if let Some(ran) = std::env::var_os(INSIDE) {
        fs::write(ran, "")?;
        return tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(body());
    }
    let test = test_of(std::any::type_name::<F>())?;
    is_possible()?;
    build()?;
    let folder = tempfile::tempdir()?;
    let (ran, log) = (folder.path().join("ran"), folder.path().join("log"));
    let code = again(test, &ran, &log)?;
    let said = fs::read_to_string(&log)?;
    ensure!(code == 0, "in a network namespace of its own, {test} ended with {code}:\n{said}");
    ensure!(ran.exists(), "there is no test named {test}:\n{said}");
    Ok(())
}

/// Whether this process is in its own network namespace.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again, with its arguments, in its own network namespace. There, [`is_inside`] returns true.
///
/// # Errors
/// The program failed there, and has printed why. Or this machine cannot make such namespaces: the error says why.
pub fn start_again() -> Result<()> {
    is_possible()?;
    build()?;
    let mut command = inside()?;
    command.args(std::env::args_os().skip(1)).env(INSIDE, "");
    let code = spawn_supervised(&command, Output::Inherit)?.wait(LIMIT)?.context("it did not end in time")?;
    ensure!(code == 0, "in a network namespace of its own, it ended with {code}");
    Ok(())
}

/// The name of the test for the test harness: from `crate::module::test::{{closure}}`, this makes `module::test`.
fn test_of(body: &str) -> Result<&str> {
    let test = body.split("::{{").next().and_then(|path| path.split_once("::"));
    test.map(|(_, test)| test).with_context(|| format!("{body} is not the body of a test"))
}

/// Runs this test in a new namespace, and returns the exit code.
fn again(test: &str, ran: &Path, log: &Path) -> Result<i32> {
    let mut command = inside()?;
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(INSIDE, ran);
    let mut child = spawn_supervised(&command, Output::Log(log.to_owned()))?;
    let code = child.wait(LIMIT)?;
    code.with_context(|| format!("{test} did not end:\n{}", fs::read_to_string(log).unwrap_or_default()))
}

/// This program in a new namespace, without arguments.
fn inside() -> Result<Command> {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--map-root-user", "sh", "-c", &format!("{} && exec \"$@\"", set_up()), "sh"])
        .arg(std::env::current_exe()?)
        .env("GITSEAL_PROGRAMS", programs::folder()?);
    Ok(command)
}

/// A shell script that sets up the loopback device with the address of the Pods.
fn set_up() -> String {
    format!("ip link set lo up && ip address add {POD}/32 dev lo")
}

fn is_possible() -> Result<()> {
    let tried = Command::new("unshare").args(["--net", "--map-root-user", "sh", "-c", &set_up()]).output();
    let why = match tried {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    bail!(
        "this test needs a network namespace of its own, which this machine does not give it ({why}). It takes the \
         programs unshare (util-linux) and ip (iproute2), and a kernel that lets everybody make user namespaces: the \
         sysctls user.max_user_namespaces and user.max_net_namespaces above 0, kernel.unprivileged_userns_clone=1 and \
         kernel.apparmor_restrict_unprivileged_userns=0, where they exist. Try: unshare --net --map-root-user true"
    )
}

/// Builds what the test needs, because nothing can be downloaded in the namespace.
fn build() -> Result<()> {
    parts::kubernetes()?.kube_controller_manager()?;
    parts::kubectl()?;
    parts::kubeseal()?;
    parts::age()?;
    parts::sealed_secrets_controller()?;
    parts::sealed_secrets_crd()?;
    programs::folder()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_known_by_its_body() {
        assert_eq!(test_of("behaviours::proxy::cert::is_found::{{closure}}").unwrap(), "proxy::cert::is_found");
        assert!(test_of("usize").is_err());
    }

    #[test]
    fn a_test_has_a_network_of_its_own() -> Result<()> {
        of_its_own(async || {
            std::net::TcpListener::bind((POD, 0))?;
            ensure!(fs::read_dir("/sys/class/net")?.count() >= 1);
            let links = fs::read_to_string("/proc/net/dev")?;
            ensure!(links.lines().skip(2).all(|line| line.trim_start().starts_with("lo:")), "{links}");
            Ok(())
        })
    }

    #[test]
    fn what_fails_in_there_fails_out_here() {
        let failed = of_its_own(async || bail!("this is why"));
        if std::env::var_os(INSIDE).is_some() {
            // This runs in the namespace. The panic is what the test outside expects.
            failed.unwrap();
            return;
        }
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("this is why") && said.contains("what_fails_in_there_fails_out_here"), "{said}");
    }
}
