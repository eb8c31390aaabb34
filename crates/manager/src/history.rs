//! The way of a note into the log and the history of the swarm.

use crate::{
    InNameOf,
    notes::{Kind, NAME_CHARS_MAX, Note, clean, record},
    refusals::no_leader,
    shared::Shared,
};
use model::{Change, Duration, NodeId, Object, Person};
use proto::{
    WireId as _,
    ca::{NoteRequest, membership_client::MembershipClient},
};
use serde_json::json;
use std::sync::{Arc, atomic::Ordering};
use tonic::Status;

/// A refusal does not wait longer for its record.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// *Limit* of what another manager says of a refusal. *Unit:* characters.
const MESSAGE_CHARS_MAX: usize = 1024;

impl Shared {
    /// Tells it in the log, and in the history unless there is too much of it already.
    ///
    /// # Errors
    /// It should be in the history, and could not be written.
    pub(crate) async fn note(&self, mut note: Note) -> Result<(), Status> {
        let mut line = json!({
            "person": note.person, "from": note.from, "via": note.via.map(|id| id.to_string()),
            "action": note.action, "object": note.object, "outcome": "done", "message": note.message,
        });
        if note.kind == Kind::Refusal {
            line["outcome"] = "refused".into();
            line["refusals"] = (self.refusals.fetch_add(1, Ordering::Relaxed) + 1).into();
            tracing::warn!(target: "audit", "{line}");
        } else {
            tracing::info!(target: "audit", "{line}");
        }
        let leader = self.store.leader_now();
        if !leader.me && note.kind != Kind::Refusal {
            return Ok(());
        }
        let Some(missed) = self.notes.admit(&note) else { return Ok(()) };
        if missed > 0 {
            let more = format!("{missed} more like it were not told");
            note.message = if note.message.is_empty() { more } else { format!("{} ({more})", note.message) };
        }
        if !leader.me {
            let (raft_id, addr) = leader.leader.ok_or_else(no_leader)?;
            let request = NoteRequest {
                person: note.person,
                from: note.from,
                via: note.via.map_or_else(Vec::new, |id| id.to_wire()),
                action: note.action,
                object: note.object,
                message: note.message,
            };
            return MembershipClient::new(self.member(raft_id, addr, &InNameOf::Stranger))
                .note(request)
                .await
                .map(drop);
        }
        let record = record(note, (self.clock)())?;
        self.change(vec![Change::Put(Object::Audit(Arc::new(record)))]).await.map(drop)
    }

    /// Tells what another manager refused: this one leads.
    ///
    /// # Errors
    /// UNAVAILABLE: it does not; INVALID_ARGUMENT.
    pub(crate) async fn note_of_another(&self, told: NoteRequest) -> Result<(), Status> {
        if !self.store.leader_now().me {
            return Err(no_leader());
        }
        let via = match &told.via[..] {
            [] => None,
            id => Some(NodeId::from_wire(id).map_err(|e| Status::invalid_argument(e.to_string()))?),
        };
        self.note(Note {
            kind: Kind::Refusal,
            person: clean(&told.person, NAME_CHARS_MAX),
            from: clean(&told.from, NAME_CHARS_MAX),
            via,
            action: clean(&told.action, NAME_CHARS_MAX),
            object: clean(&told.object, 2 * NAME_CHARS_MAX),
            message: clean(&told.message, MESSAGE_CHARS_MAX),
        })
        .await
    }

    /// Returns the refusal of a person, having told it.
    pub(crate) async fn refused(&self, person: &Person, action: &str, object: &str, reason: &str) -> Status {
        let note = Note::of(Kind::Refusal, person, &format!("{action} refused"), object);
        self.tell(Note { message: reason.to_owned(), ..note }).await;
        Status::permission_denied(format!("{} may not: {reason}", person.name))
    }

    /// Tells what is not worth failing for.
    pub(crate) async fn tell(&self, note: Note) {
        match tokio::time::timeout(WRITE_LIMIT, self.note(note)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "not in the audit history, but in the log"),
            Err(_) => tracing::warn!("not in the audit history in time, but in the log"),
        }
    }
}
