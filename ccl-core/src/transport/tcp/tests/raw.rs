//! The dialling end of a link, simulated by hand.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::wire::data::{
    Content, HEADER_BYTES, Header, LaneHello, LaneWelcome, PayloadCheck, TRAILER_BYTES,
    WELCOME_BYTES,
};

/// One connection.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
}

/// The hello that `node` waits for from `from` on a link of one bulk lane.
pub(super) fn hello(node: &Node, from: PeerId, lane: u16) -> LaneHello {
    LaneHello {
        run: RUN,
        from,
        to: node.id,
        from_key: key_of(from),
        to_key: key_of(node.id),
        incarnation: 1,
        known: 0,
        attempt: 1,
        next_expected: 0,
        lane,
        lanes: 1,
        checksum: true,
    }
}

/// How a node knows a simulated peer.
pub(super) fn stranger(id: u64) -> (PeerId, Neighbour) {
    let id = PeerId(id);
    let neighbour = Neighbour {
        addresses: vec![],
        key: key_of(id),
        dial: false,
    };
    (id, neighbour)
}

impl Raw {
    /// A connection that has sent nothing, with a small receive buffer.
    pub(super) async fn connect(node: &Node) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(node.links.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// An established lane.
    pub(super) async fn greet(node: &Node, hello: &LaneHello) -> (Self, LaneWelcome) {
        let mut raw = Self::connect(node).await;
        raw.write(&hello.encode()).await;
        let welcome = raw.read::<WELCOME_BYTES>().await;
        (raw, LaneWelcome::decode(&welcome).unwrap())
    }

    /// Both lanes of a link.
    pub(super) async fn link(node: &mut Node, from: PeerId) -> (Self, Self) {
        let signal = Self::greet(node, &hello(node, from, 0)).await.0;
        let bulk = Self::greet(node, &hello(node, from, 1)).await.0;
        node.next_is(Seen::Up).await;
        (signal, bulk)
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let read = self.stream.read_exact(&mut bytes);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        bytes
    }

    pub(super) async fn discard(&mut self, bytes: usize) {
        let mut sink = vec![0; bytes];
        let read = self.stream.read_exact(&mut sink);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    }

    /// The next header that is neither a ping nor an acknowledgement.
    pub(super) async fn read_header(&mut self) -> (Header, [u8; HEADER_BYTES]) {
        loop {
            let bytes = self.read().await;
            let (header, _) = Header::decode(&bytes).unwrap();
            if header.content.is_numbered() {
                return (header, bytes);
            }
        }
    }

    /// The rest of a frame; `None` if it is void.
    pub(super) async fn read_payload(
        &mut self,
        header: &[u8; HEADER_BYTES],
        payload_bytes: usize,
    ) -> Option<Vec<u8>> {
        let mut payload = vec![0; payload_bytes];
        self.stream.read_exact(&mut payload).await.unwrap();
        let trailer = self.read::<TRAILER_BYTES>().await;
        let mut check = PayloadCheck::after(header, true);
        check.update(&payload);
        check.verify(&trailer).unwrap().then_some(payload)
    }

    /// Whether the other side ends the connection, whatever it sends before.
    pub(super) async fn is_closed(&mut self) -> bool {
        let read_all = async {
            let mut bytes = [0; 1024];
            while self
                .stream
                .read(&mut bytes)
                .await
                .is_ok_and(|count| count > 0)
            {}
        };
        tokio::time::timeout(PATIENCE, read_all).await.is_ok()
    }
}

/// A frame as bytes.
pub(super) fn frame(sequence: u64, header: FrameHeader, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        content: Content::Frame(header),
        sequence,
        ack: 0,
    };
    let mut bytes = header.encode().to_vec();
    if !payload.is_empty() {
        let mut check = PayloadCheck::after(&header.encode(), true);
        check.update(payload);
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&check.valid());
    }
    bytes
}
