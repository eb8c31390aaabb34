//! What people did: every write of a person is judged, recorded and made in one step.
//!
//! The record is in the batch of the change that it tells of, so that neither is there without the other; the same is
//! said in the log, as JSON. What is refused is told by `notes`.

use crate::{authorize::Caller, random::random_id, rights, shared::Shared};
use model::{
    AuditId, AuditRecord, Change, Meta, NodeId, Object, ObjectRef, Person, PersonRole, Tables, Timestamp,
};
use prost::Message as _;
use proto::types;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Status;

/// What somebody is about to do.
#[derive(Debug, Clone)]
pub(crate) struct Deed<'a> {
    pub(crate) person: &'a Person,
    /// One word, as in `create`.
    pub(crate) action: &'static str,
    /// What the person says about it.
    pub(crate) message: String,
    /// What is done to whom, if the changes do not show it.
    pub(crate) object: Option<String>,
    pub(crate) judged_by: Judge,
}

/// What a deed is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// The objects that it changes.
    Objects,
    /// It takes role admin, whatever it changes.
    Admin,
    /// Whoever does it does it to himself, and has shown that he may.
    Nobody,
}

impl<'a> Deed<'a> {
    pub(crate) fn new(person: &'a Person, action: &'static str) -> Self {
        Self { person, action, message: String::new(), object: None, judged_by: Judge::Objects }
    }

    /// Returns an error unless the person may make these changes of this state.
    pub(crate) fn judge(&self, view: &Tables, changes: &[Change]) -> Result<(), String> {
        let role = &self.person.role;
        match self.judged_by {
            Judge::Nobody => return Ok(()),
            Judge::Admin if *role != PersonRole::Admin => {
                return Err(format!("{} takes role admin", self.action));
            }
            Judge::Admin | Judge::Objects => {}
        }
        if *role == PersonRole::Admin {
            return Ok(());
        }
        // What is made together may use each other.
        // If it cannot be, the write will fail by itself, and say why.
        let after = view.assume(changes).unwrap_or_else(|_| view.clone());
        for change in changes {
            let (before, put) = match change {
                Change::Put(object) => (view.get(object.key()), Some(object)),
                Change::Delete { key, .. } => (view.get(*key), None),
            };
            rights::may_write(role, &after, before.as_ref(), put)?;
        }
        Ok(())
    }

    /// Returns what is told of the changes: the stack if it is one that is changed, else the first object.
    fn record(&self, view: &Tables, changes: &[Change], now: Timestamp) -> Result<AuditRecord, Status> {
        let key = |change: &Change| match change {
            Change::Put(object) => object.key(),
            Change::Delete { key, .. } => *key,
        };
        let stack = changes.iter().find(|change| matches!(key(change), ObjectRef::Stack(_)));
        let main = stack.or_else(|| changes.first());
        let before = main.and_then(|change| view.get(key(change)));
        let told = main.and_then(|change| match change {
            Change::Put(object) => Some(described(object)),
            Change::Delete { .. } => before.as_ref().map(described),
        });
        let random = u64::try_from(random_id()? >> 64).unwrap_or(0);
        Ok(AuditRecord {
            id: AuditId::new(now, random),
            meta: Meta::default(),
            person: self.person.name.clone(),
            from: self.person.from.clone(),
            via: (self.person.via != NodeId(0)).then_some(self.person.via),
            action: self.action.to_owned(),
            object: self.object.clone().or(told).unwrap_or_default(),
            before: before.as_ref().map_or(0, Object::version),
            message: match role_change(before.as_ref(), main) {
                Some(roles) if self.message.is_empty() => roles,
                Some(_) | None => self.message.clone(),
            },
        })
    }
}

/// *Limit* of what is said of one object: every manager holds it in memory, twice while it changes. *Unit:* bytes.
/// *Source:* swarmkit `manager/state/store/memory.go`, `MaxTransactionBytes`.
const SPEC_BYTES_MAX: usize = 3 << 19;

/// Refuses what would be more than [`SPEC_BYTES_MAX`]. What is more already may be changed, not grow.
fn has_an_end(view: &Tables, changes: &[Change]) -> Result<(), Status> {
    for change in changes {
        let Change::Put(object) = change else { continue };
        let bytes = said_bytes(object);
        if bytes > SPEC_BYTES_MAX && view.get(object.key()).is_none_or(|old| said_bytes(&old) < bytes) {
            return Err(Status::invalid_argument(format!(
                "{} has {bytes} bytes, and {SPEC_BYTES_MAX} at most are kept of one; hint: labels, variables and \
                 arguments are no place for content, configs and volumes are",
                described(object)
            )));
        }
    }
    Ok(())
}

/// Returns the length of what people say of an object. A stack has an end by the message that brings it, and those of
/// its services; users and the swarm have limits of their own.
fn said_bytes(object: &Object) -> usize {
    match object {
        Object::Service(service) => types::ServiceSpec::from(&*service.spec).encoded_len(),
        Object::Network(_) | Object::Secret(_) | Object::Config(_) | Object::Node(_) => {
            types::Object::from(object).encoded_len()
        }
        Object::Cluster(_) | Object::Task(_) | Object::Stack(_) | Object::User(_) | Object::Audit(_) => 0,
    }
}

/// Says from what to what a node's or a user's role changes.
fn role_change(before: Option<&Object>, change: Option<&Change>) -> Option<String> {
    let (old, new) = match (before?, change?) {
        (Object::User(old), Change::Put(Object::User(new))) => (in_words(&old.role), in_words(&new.role)),
        (Object::Node(old), Change::Put(Object::Node(new))) => {
            let word = |role| format!("{role:?}").to_lowercase();
            (word(old.spec.role), word(new.spec.role))
        }
        _ => return None,
    };
    (old != new).then(|| format!("role {old} -> {new}"))
}

fn in_words(role: &PersonRole) -> String {
    match role {
        PersonRole::Deploy { stacks } if !stacks.is_empty() => format!("deploy of {}", stacks.join(", ")),
        PersonRole::Admin | PersonRole::Deploy { .. } | PersonRole::Read => role.word().to_owned(),
    }
}

/// Returns kind and name of an object.
fn described(object: &Object) -> String {
    let kind = match object {
        Object::Cluster(_) => return "swarm".to_owned(),
        Object::Node(_) => "node",
        Object::Service(_) => "service",
        Object::Task(_) => "task",
        Object::Network(_) => "network",
        Object::Secret(_) => "secret",
        Object::Config(_) => "config",
        Object::Stack(_) => "stack",
        Object::User(_) => "user",
        Object::Audit(_) => "audit record",
    };
    format!("{kind} {}", object.name().unwrap_or_default())
}

impl Shared {
    /// Decides, judges, records and writes, as [`Shared::decide_leading`] does.
    ///
    /// # Errors
    /// PERMISSION_DENIED: the person may not; nothing was done.
    pub(crate) async fn decide_for<T>(
        &self,
        deed: Deed<'_>,
        unchanged: u64,
        decide: impl Fn(&Tables) -> Result<(T, Vec<Change>), Status>,
    ) -> Result<(u64, T), Status> {
        let refused = Mutex::new(None);
        let written = self
            .decide_leading(unchanged, |view| {
                // Of this view; what was refused of an older one is decided anew.
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let (made, mut changes) = decide(view)?;
                if let Err(reason) = deed.judge(view, &changes) {
                    let object = deed.record(view, &changes, (self.clock)())?.object;
                    let status = Status::permission_denied(reason.clone());
                    *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((object, reason));
                    return Err(status);
                }
                has_an_end(view, &changes)?;
                if changes.is_empty() && deed.object.is_none() {
                    return Ok(((made, None), changes));
                }
                let record = Arc::new(deed.record(view, &changes, self.stamp())?);
                changes.push(Change::Put(Object::Audit(Arc::clone(&record))));
                Ok(((made, Some(record)), changes))
            })
            .await;
        let (version, (made, record)) = match written {
            Ok(written) => written,
            Err(status) => {
                let refused = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
                if let Some((object, reason)) = refused {
                    return Err(self.refused(deed.person, deed.action, &object, &reason).await);
                }
                log_failure(&deed, &status);
                return Err(status);
            }
        };
        if let Some(record) = record {
            log(&record, version);
        }
        Ok((version, made))
    }
}

impl Caller {
    /// Returns the person who calls.
    ///
    /// # Errors
    /// PERMISSION_DENIED when it is none.
    pub(crate) fn person(&self) -> Result<&Person, Status> {
        match &self.who {
            crate::authorize::Who::Person(person) => Ok(person),
            crate::authorize::Who::Nobody | crate::authorize::Who::Node { .. } => {
                Err(Status::permission_denied("only people may"))
            }
        }
    }
}

fn log(record: &AuditRecord, version: u64) {
    let line = json!({
        "person": record.person, "from": record.from, "via": record.via.map(|id| id.to_string()),
        "action": record.action, "object": record.object, "before": record.before, "after": version,
        "message": record.message, "outcome": "done",
    });
    tracing::info!(target: "audit", "{line}");
}

fn log_failure(deed: &Deed<'_>, status: &Status) {
    if status.code() == tonic::Code::PermissionDenied {
        return; // said where it was refused
    }
    let line = json!({
        "person": deed.person.name, "from": deed.person.from, "via": deed.person.via.to_string(),
        "action": deed.action, "outcome": "failed", "reason": status.message(),
    });
    tracing::info!(target: "audit", "{line}");
}
