//! The wires between managers of one process, which can be cut.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What becomes of bytes from one manager to another, and of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Whole,
    /// Connections end, and none is taken: a host that is off.
    Cut,
    /// Nothing arrives, and nobody is told: a cable that is out. What was sent arrives when it is whole again.
    Silent,
    /// What is sent arrives; what is answered does not.
    OneWay,
}

/// Every wire, by the address of who dials and the address that is dialled. Without [`Links::new`] there are none, and
/// everybody dials directly.
#[derive(Debug, Clone, Default)]
pub(super) struct Links(Option<Arc<Mutex<State>>>);

#[derive(Debug, Default)]
struct State {
    wires: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, watch::Sender<Wire>)>,
    tasks: JoinSet<()>,
}

impl Links {
    pub(super) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Returns where `from` must dial to reach `to`.
    pub(super) fn through(&self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let Some(state) = &self.0 else { return to };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { wires, tasks } = &mut *state;
        let (addr, _) = wires.entry((from, to)).or_insert_with(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let (set, wire) = watch::channel(Wire::Whole);
            let addr = listener.local_addr().unwrap();
            tasks.spawn(serve(listener, to, wire));
            (addr, set)
        });
        *addr
    }

    /// Sets what becomes of what is between two managers, whoever dials.
    pub(super) fn set(&self, one: SocketAddr, other: SocketAddr, wire: Wire) {
        for (from, to) in [(one, other), (other, one)] {
            self.through(from, to);
            let state = self.0.as_ref().expect("they go through wires");
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            // One way: from the first of the two to the second, whoever dialled.
            state.wires[&(from, to)].1.send_replace(wire);
        }
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, wire: watch::Receiver<Wire>) {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        if *wire.borrow() == Wire::Cut {
            continue;
        }
        let wire = wire.clone();
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let mut cut = wire.clone();
            tokio::select! {
                () = carry(near_in, far_out, wire.clone(), &[Wire::Whole, Wire::OneWay]) => {}
                () = carry(far_in, near_out, wire, &[Wire::Whole]) => {}
                _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries bytes one way while the wire lets them through.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
    open: &[Wire],
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if wire.wait_for(|wire| open.contains(wire)).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
