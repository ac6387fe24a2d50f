//! Clients that connect and send no request do not keep others from being answered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Plane, programs::Controller};
use localcluster::ClusterOptions;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

/// More connections than the controller accepts on one port at the same time, and few enough for any machine.
const MANY: usize = 300;
/// Much longer than an answer takes. But it is shorter than the controller's timeouts, which would close the
/// connections in any case.
const LIMIT: Duration = Duration::from_secs(60);

/// Opens connections. Some send nothing; others send the head of a request byte by byte, and never its end.
async fn hold(controller: &Controller, port: u16) -> Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    for number in 0..MANY {
        let mut stream = controller.connect(port).await?;
        if number % 3 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ").await?;
        }
        held.push(stream);
    }
    Ok(held)
}

#[tokio::test]
async fn idle_clients_keep_neither_probes_nor_others_from_an_answer() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let mut controller = plane.controller.lock().await;
    let controller = controller.as_mut().context("a controller")?;
    let mut held = hold(controller, controller.port).await?;
    held.extend(hold(controller, controller.metrics_port).await?);
    held.extend(hold(controller, controller.probes_port).await?);

    let get = async |port, path| {
        timeout(LIMIT, controller.get(port, path)).await.with_context(|| format!("no answer to {path}"))?
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(controller.probes_port, path).await?, (200, "ok\n".to_owned()), "{path}");
        assert_eq!(get(controller.port, path).await?, (200, "ok\n".to_owned()), "as Sealed Secrets: {path}");
    }
    let (status, certificate) = get(controller.port, "/v1/cert.pem").await?;
    ensure!(status == 200 && certificate.contains("BEGIN CERTIFICATE"), "{status}: {certificate}");
    assert_eq!(get(controller.metrics_port, "/metrics").await?.0, 200);

    drop(held);
    ensure!(controller.process().try_wait()?.is_none(), "the controller is still the same");
    Ok(())
}
