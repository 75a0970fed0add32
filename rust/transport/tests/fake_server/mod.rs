//! A write door whose every word is written by the test.
//!
//! It speaks real HTTP/2 over a real socket. Each call of `Stream` is handed to the test as a [`FakeStream`]: what the client
//! said comes out of one end, what the server says goes in at the other.

use std::pin::Pin;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use runferry_transport::Door;
use runferry_transport::proto::client_message::Kind as Told;
use runferry_transport::proto::ingest_server::{Ingest, IngestServer};
use runferry_transport::proto::server_message::Kind as Said;
use runferry_transport::proto::{Ack, ClientMessage, Frames, Open, OpenOk, ServerMessage};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct FakeServer {
    pub(crate) port: u16,
    streams: mpsc::Receiver<FakeStream>,
    serving: JoinHandle<()>,
}

/// One call, seen from the server.
pub(crate) struct FakeStream {
    pub(crate) authorization: Option<String>,
    from_client: Streaming<ClientMessage>,
    to_client: Option<mpsc::Sender<Result<ServerMessage, Status>>>,
}

impl FakeServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (opened, streams) = mpsc::channel(64);
        let serving = tokio::spawn(async move {
            // Connections live in this set, so that they end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let ingest = IngestServer::new(Handover(opened.clone())).max_decoding_message_size(16 << 20);
                let service = TowerToHyperService::new(ingest);
                connections.spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { port, streams, serving }
    }

    pub(crate) fn door(&self) -> Door {
        door(self.port)
    }

    pub(crate) async fn next_stream(&mut self) -> FakeStream {
        self.streams.recv().await.expect("the server runs as long as the test")
    }

    /// Closes every socket at once, as a killed process does.
    pub(crate) async fn kill(self) {
        self.serving.abort();
        self.serving.await.expect_err("aborted");
    }
}

impl FakeStream {
    pub(crate) async fn hear(&mut self) -> Option<Told> {
        self.from_client.message().await.ok().flatten().and_then(|message| message.kind)
    }

    pub(crate) async fn hear_open(&mut self) -> Open {
        match self.hear().await {
            Some(Told::Open(open)) => open,
            other => panic!("expected Open, heard {other:?}"),
        }
    }

    pub(crate) async fn hear_frames(&mut self) -> Frames {
        match self.hear().await {
            Some(Told::Frames(frames)) => frames,
            other => panic!("expected Frames, heard {other:?}"),
        }
    }

    pub(crate) async fn say(&self, kind: Said) {
        let said = self.to_client.as_ref().expect("not ended").send(Ok(ServerMessage { kind: Some(kind) })).await;
        said.ok(); // the client may have hung up, which the test will see
    }

    pub(crate) async fn ack(&self, received_next_seq: u64, durable_next_seq: u64) {
        self.say(Said::Ack(Ack { received_next_seq, durable_next_seq })).await;
    }

    /// Hears Open and answers it.
    pub(crate) async fn accept(&mut self, next_seq: u64, credit_bytes: u64) -> Open {
        let open = self.hear_open().await;
        self.say(Said::OpenOk(open_ok(next_seq, credit_bytes))).await;
        open
    }

    /// Ends the stream with OK.
    pub(crate) fn end(&mut self) {
        self.to_client = None;
    }

    /// Ends the stream with a status.
    pub(crate) async fn fail(&mut self, status: Status) {
        let said = self.to_client.take().expect("not ended").send(Err(status)).await;
        said.ok();
    }
}

pub(crate) fn open_ok(next_seq: u64, credit_bytes: u64) -> OpenOk {
    OpenOk {
        next_seq,
        storage_epoch: vec![1, 2, 3].into(),
        run_url: "/runs/entity/project/id".into(),
        credit_bytes,
        run_existed: true,
        last_step: 41,
        last_frame_hash: vec![7; 8].into(),
        durability: "disk".into(),
        max_frame_bytes: 9 << 20,
    }
}

pub(crate) fn door(port: u16) -> Door {
    Door {
        write_host: "127.0.0.1".into(),
        write_port: port,
        has_tls: false,
        version: "fake".into(),
        storage_epoch: String::new(),
    }
}

/// Listens, and gives each connection to `serve`.
pub(crate) async fn raw_server<F, Serving>(serve: F) -> u16
where
    F: Fn(TcpStream) -> Serving + Send + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    port
}

/// Gives each call to the test.
struct Handover(mpsc::Sender<FakeStream>);

#[tonic::async_trait]
impl Ingest for Handover {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<ClientMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let authorization = request.metadata().get("authorization").map(|key| key.to_str().expect("text").to_owned());
        let (to_client, messages) = mpsc::channel(64);
        let from_client = request.into_inner();
        let stream = FakeStream { authorization, from_client, to_client: Some(to_client) };
        self.0.send(stream).await.map_err(|_gone| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}
