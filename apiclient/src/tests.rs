use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use tokio::time::sleep;
use tower::{Service, service_fn};

use super::*;

type Chunks = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// How the test server handles one request.
#[derive(Clone, Copy)]
enum Does {
    Answers(Duration),
    AnswersHalf,
    Nothing,
    Breaks,
    Watches { every: Duration },
}

fn chunk(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

async fn serve(does: Does) -> Result<Response<Chunks>, BoxError> {
    let chunks: BoxStream<'static, Frame<Bytes>> = match does {
        Does::Answers(after) => {
            sleep(after).await;
            futures::stream::iter([chunk("whole"), chunk(" answer")]).boxed()
        }
        Does::AnswersHalf => futures::stream::iter([chunk("half")]).chain(futures::stream::pending()).boxed(),
        Does::Nothing => std::future::pending().await,
        Does::Breaks => return Err("connection reset".into()),
        Does::Watches { every } => futures::stream::unfold((), move |()| async move {
            sleep(every).await;
            Some((chunk("bookmark"), ()))
        })
        .boxed(),
    };
    Ok(Response::new(StreamBody::new(chunks.map(Ok).boxed())))
}

/// A server that handles each request as the next item of `script` says. When there are no more items, it handles all
/// further requests like the last item.
struct Server {
    script: Vec<Does>,
    asked: AtomicUsize,
    bodies: Mutex<Vec<Bytes>>,
}

impl Server {
    fn new(script: impl IntoIterator<Item = Does>) -> Arc<Self> {
        let script = script.into_iter().collect();
        Arc::new(Self { script, asked: AtomicUsize::new(0), bodies: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn client(
        self: &Arc<Self>,
        deadlines: Deadlines,
    ) -> impl Service<Request<Body>, Response = Response<Answer<Chunks>>, Error = BoxError, Future: Send> + Clone {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let body = request.into_body().collect_bytes().await?;
                server.bodies.lock().unwrap().push(body);
                let asked = server.asked.fetch_add(1, Ordering::SeqCst);
                serve(*server.script.get(asked).or(server.script.last()).unwrap()).await
            }
        });
        Deadline::new(BoxCloneSyncService::new(service), deadlines)
    }
}

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

/// The deadlines of a controller. Deadlines that a test waits for are made short by the test; all others are long.
fn leading() -> Deadlines {
    let silence = Silence { longest: LONG, in_trouble: LONG };
    Deadlines { answer: LONG, late: LONG, silence, ..Deadlines::for_controllers(|| true) }
}

fn request(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::from(b"body".to_vec())).unwrap()
}

/// Sends a request, and returns the text of the answer, or why there is no answer.
async fn ask(server: &Arc<Server>, deadlines: &Deadlines, method: Method) -> Result<String, BoxError> {
    let answer = server.client(deadlines.clone()).oneshot(request(method, "/api/v1/things")).await?;
    let bytes = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec())?)
}

#[tokio::test]
async fn no_request_waits_for_ever() {
    for does in [Does::Nothing, Does::AnswersHalf] {
        for method in [Method::GET, Method::PATCH, Method::DELETE, Method::POST, Method::PUT] {
            let server = Server::new([does]);
            let deadlines = Deadlines { answer: SOON, ..leading() };
            let error = ask(&server, &deadlines, method.clone()).await.unwrap_err();
            assert!(error.is::<NoAnswer>(), "{method}: {error}");
            assert_eq!(server.asked(), 1, "{method}");
        }
    }
    assert_eq!(NoAnswer { after: Duration::from_secs(40) }.to_string(), "no answer within 40 s");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_once_more() {
    let answers = Does::Answers(Duration::ZERO);
    for lost in [Does::Nothing, Does::AnswersHalf] {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let server = Server::new([lost, lost, answers]);
            let deadlines = Deadlines { late: SOON, ..leading() };
            assert_eq!(ask(&server, &deadlines, method).await.unwrap(), "whole answer");
            assert_eq!(*server.bodies.lock().unwrap(), vec![Bytes::from_static(b"body"); 3]);
        }
    }
}

#[tokio::test]
async fn what_may_not_be_made_twice_is_not_repeated() {
    for method in [Method::POST, Method::PUT] {
        let server = Server::new([Does::Nothing]);
        let deadlines = Deadlines { answer: 4 * SOON, late: SOON, ..leading() };
        ask(&server, &deadlines, method).await.unwrap_err();
        assert_eq!(server.asked(), 1);
    }
    let people = Server::new([Does::Nothing]);
    let deadlines = Deadlines { answer: 4 * SOON, late: SOON, ..Deadlines::for_people() };
    ask(&people, &deadlines, Method::GET).await.unwrap_err();
    assert_eq!(people.asked(), 1, "they decide themselves");
}

#[tokio::test]
async fn who_may_not_write_any_more_repeats_no_write() {
    let deadlines = Deadlines { answer: 4 * SOON, late: SOON, ..Deadlines::for_controllers(|| false) };
    for (method, repeats) in [(Method::PATCH, false), (Method::DELETE, false), (Method::GET, true)] {
        let server = Server::new([Does::Nothing]);
        ask(&server, &deadlines, method.clone()).await.unwrap_err();
        assert_eq!(server.asked() > 1, repeats, "{method}");
    }
}

#[tokio::test]
async fn a_slow_answer_gets_its_time() {
    // Only the first request gets an answer.
    let server = Server::new([Does::Answers(6 * SOON), Does::Nothing]);
    let deadlines = Deadlines { late: SOON, ..leading() };
    assert_eq!(ask(&server, &deadlines, Method::PATCH).await.unwrap(), "whole answer");
    assert!(server.asked() > 1);
}

#[tokio::test]
async fn a_broken_connection_is_told_at_once() {
    let server = Server::new([Does::Breaks]);
    assert_eq!(ask(&server, &leading(), Method::PATCH).await.unwrap_err().to_string(), "connection reset");
}

/// Starts a watch, and returns its answer.
async fn watch(does: Does, deadlines: Deadlines) -> Answer<Chunks> {
    let server = Server::new([does]);
    let path = "/api/v1/things?watch=true&allowWatchBookmarks=true";
    server.client(deadlines).oneshot(request(Method::GET, path)).await.unwrap().into_body()
}

#[tokio::test]
async fn a_silent_watch_ends() {
    let silence = Silence { longest: SOON, in_trouble: SOON };
    let mut body = watch(Does::Watches { every: Duration::MAX }, Deadlines { silence, ..leading() }).await;
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_watch_is_trusted_less_while_others_get_no_answer() {
    let silence = Silence { longest: LONG, in_trouble: SOON };
    let server = Server::new([Does::Watches { every: Duration::MAX }, Does::Nothing]);
    let mut client = server.client(Deadlines { answer: SOON, silence, ..leading() });
    let watch = client.call(request(Method::GET, "/api/v1/things?watch=true")).await.unwrap();
    client.call(request(Method::POST, "/api/v1/things")).await.err().unwrap();
    assert!(watch.into_body().frame().await.is_none());
}

#[tokio::test]
async fn a_lively_watch_goes_on() {
    let silence = Silence { longest: 20 * SOON, in_trouble: SOON };
    let mut body = watch(Does::Watches { every: SOON }, Deadlines { answer: SOON, silence, ..leading() }).await;
    for _ in 0..40 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "bookmark");
    }
}

#[tokio::test]
async fn a_watch_that_does_not_begin_has_a_deadline() {
    let server = Server::new([Does::Nothing]);
    let client = server.client(Deadlines { answer: SOON, ..leading() });
    let answer = client.oneshot(request(Method::GET, "/api/v1/things?watch=true")).await;
    assert!(answer.is_err_and(|error| error.is::<NoAnswer>()));
}
