//! Users and audit records.

use super::Invalid;
use crate::types::{self, ObjectVersion};
use model::{AuditRecord, PersonRole, User};

/// Reads a role.
///
/// # Errors
/// An unknown word, or stacks for a role that has none.
pub fn person_role(word: &str, stacks: Vec<String>) -> Result<PersonRole, Invalid> {
    let role = match word {
        "admin" => PersonRole::Admin,
        "deploy" => return Ok(PersonRole::Deploy { stacks }),
        "read" => PersonRole::Read,
        other => return Err(Invalid(format!("unknown role {other:?}; there are admin, deploy and read"))),
    };
    if stacks.is_empty() {
        Ok(role)
    } else {
        Err(Invalid("only role deploy is limited to stacks".to_owned()))
    }
}

/// Returns a role's word and its stack patterns.
pub fn person_role_json(from: &PersonRole) -> (String, Vec<String>) {
    match from {
        PersonRole::Admin => ("admin".to_owned(), Vec::new()),
        PersonRole::Deploy { stacks } => ("deploy".to_owned(), stacks.clone()),
        PersonRole::Read => ("read".to_owned(), Vec::new()),
    }
}

/// Writes a user.
pub fn user_json(from: &User) -> types::User {
    let (role, stacks) = person_role_json(&from.role);
    types::User {
        id: from.id.to_string(),
        version: ObjectVersion { index: from.meta.version },
        created_at: from.meta.created_at.into(),
        updated_at: from.meta.updated_at.into(),
        spec: types::UserSpec { name: from.name.clone(), role, stacks },
        has_password: from.password.is_some(),
        tokens: from
            .tokens
            .iter()
            .map(|token| types::UserToken {
                id: token.id.clone(),
                label: token.label.clone(),
                created_at: token.created.into(),
                expires_at: token.expires.map(Into::into),
            })
            .collect(),
        certificates: from
            .certificates
            .iter()
            .map(|certificate| types::IssuedCertificate {
                serial: certificate.serial.clone(),
                issued_at: certificate.issued.into(),
                expires_at: certificate.expires.into(),
                revoked: certificate.revoked,
            })
            .collect(),
    }
}

/// Writes an audit record.
pub fn audit_json(from: &AuditRecord) -> types::AuditRecord {
    types::AuditRecord {
        id: from.id.to_string(),
        at: from.meta.created_at.into(),
        person: from.person.clone(),
        from: from.from.clone(),
        via: from.via.map(|node| node.to_string()).unwrap_or_default(),
        action: from.action.clone(),
        object: from.object.clone(),
        before: from.before,
        after: from.meta.version,
        message: from.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_survive_docker_json_and_only_deployers_have_stacks() {
        let stacks = || vec!["shop*".to_owned()];
        for role in [PersonRole::Admin, PersonRole::Deploy { stacks: stacks() }, PersonRole::Read] {
            let (word, patterns) = person_role_json(&role);
            assert_eq!(person_role(&word, patterns), Ok(role));
        }
        assert!(person_role("admin", stacks()).is_err());
        assert!(person_role("root", Vec::new()).is_err());
    }
}
