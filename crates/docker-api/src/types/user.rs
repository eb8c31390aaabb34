//! Users of a swarm and what was done by whom. Not in Docker: under `/rswarm`.

use super::{ObjectVersion, Time};

wire! {
    User {
        id: String = "ID",
        version: ObjectVersion = "Version",
        created_at: Time = "CreatedAt",
        updated_at: Time = "UpdatedAt",
        flatten spec: UserSpec,
        has_password: bool = "HasPassword",
        tokens: Vec<UserToken> = "Tokens",
        certificates: Vec<IssuedCertificate> = "Certificates",
    }
    IssuedCertificate {
        /// Hexadecimal.
        serial: String = "Serial",
        issued_at: Time = "IssuedAt",
        expires_at: Time = "ExpiresAt",
        revoked: bool = "Revoked",
    }
    UserSpec {
        name: String = "Name",
        /// `admin`, `deploy` or `read`.
        role: String = "Role",
        /// Of role `deploy`: patterns of stack names; none = every stack.
        stacks: Vec<String> = "Stacks",
    }
    UserToken {
        id: String = "ID",
        label: String = "Label",
        created_at: Time = "CreatedAt",
        /// Not there: it does not expire.
        expires_at: Option<Time> => "ExpiresAt",
    }
    NewUserToken {
        label: String => "Label",
        /// 0 = it does not expire.
        lifetime_seconds: u64 => "LifetimeSeconds",
    }
    /// A token in full: said once.
    GivenUserToken {
        token: String = "Token",
        expires_at: Option<Time> => "ExpiresAt",
    }
    UserPassword {
        /// Empty: no login by password any more.
        password: String = "Password",
    }
    UserLogin {
        name: String = "Name",
        password: String = "Password",
        flatten token: NewUserToken,
    }
    UserCertificateRequest {
        /// PEM.
        csr: String = "CSR",
        lifetime_seconds: u64 = "LifetimeSeconds",
    }
    UserCertificate {
        /// PEM, leaf first.
        chain: String = "Chain",
    }
    WhoAmI {
        name: String = "Name",
        role: String = "Role",
        stacks: Vec<String> = "Stacks",
        /// Id of the swarm.
        swarm: String = "Swarm",
    }
    AuditRecord {
        id: String = "ID",
        at: Time = "At",
        person: String = "Person",
        from: String = "From",
        /// Id of the node whose front door took the request.
        via: String => "Via",
        action: String = "Action",
        object: String = "Object",
        /// Version of the object before; 0 = it was not there.
        before: u64 = "Before",
        after: u64 = "After",
        message: String => "Message",
    }
}
