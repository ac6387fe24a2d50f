//! Waits until an API server is ready.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http::Request;

use super::{Cluster, Program, client};
use crate::{
    error::{Error, Result},
    tail_of,
};

/// The paths that must answer. The system's namespaces appear a moment after `/readyz` says that the server is ready.
const QUESTIONS: [&str; 3] = ["/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system"];

pub(super) fn wait(cluster: &mut Cluster, limit: Duration) -> Result<()> {
    let until = Instant::now() + limit;
    loop {
        let Some(last) = unanswered(cluster.kubeconfig.clone()) else {
            return Ok(());
        };
        for (_, child) in &mut cluster.programs {
            if let Some(failure) = child.failure()? {
                return Err(failure);
            }
        }
        if Instant::now() > until {
            let log = cluster.log(Program::ApiServer);
            return Err(Error::NotReady {
                program: Program::ApiServer.name().to_owned(),
                seconds: limit.as_secs(),
                last,
                tail: tail_of(&log),
                log,
            });
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Returns why the server is not ready, or `None` if it is ready.
///
/// This starts a thread with its own async runtime, because the caller's thread may run another runtime already.
fn unanswered(kubeconfig: PathBuf) -> Option<String> {
    let ask = move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), questions(&kubeconfig))
                .await
                .unwrap_or_else(|_| Err("no answer within 10 s".to_owned()))
        })
    };
    std::thread::spawn(ask).join().unwrap_or_else(|_| Err("the request panicked".to_owned())).err()
}

async fn questions(kubeconfig: &Path) -> Result<(), String> {
    let client = client(kubeconfig).await.map_err(|error| error.to_string())?;
    for path in QUESTIONS {
        let request = Request::get(path).body(Vec::new()).expect("the path is a valid URI");
        client.request_text(request).await.map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}
