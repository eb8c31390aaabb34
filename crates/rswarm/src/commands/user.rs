//! `rswarm user ...` and `rswarm audit`: people and what they did.

use super::{each, inspect, logins::Logins};
use crate::{
    cli::{
        AuditArgs, FormatArgs, Life, ListArgs, User, UserAdd, UserCert, UserLogin, UserPasswd, UserRevoke,
        UserToken,
    },
    list::{self, List},
    output,
};
use anyhow::{Context, Result, bail};
use docker_api::{client::Client, types};
use std::{
    fs,
    io::{BufRead as _, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
};

pub(crate) async fn run(client: &Client, command: User) -> Result<()> {
    match command {
        User::Add(args) => {
            client.user_create(&spec(&args)).await?;
            output::line(&args.name)?;
            output::warning(&format!(
                "{} has no way to log in yet; hint: rswarm user token create {}",
                args.name, args.name
            ));
            Ok(())
        }
        User::Update(args) => {
            let user = client.user(&args.name).await?;
            client.user_update(&args.name, user.version.index, &spec(&args)).await?;
            output::line(&args.name)
        }
        User::Ls(args) => ls(client, &args).await,
        User::Inspect(args) => inspect(client, "rswarm/users", &args).await,
        User::Rm(names) => each(&names.names, async |name| Ok(client.user_remove(name).await?)).await,
        User::Passwd(args) => passwd(client, &args).await,
        User::Token(command) => token(client, command).await,
        User::Cert(args) => cert(client, &args).await,
        User::Revoke(args) => revoke(client, &args).await,
        User::Login(args) => login(client, &args).await,
        User::Logout => match Logins::read()?.forget(client.host())? {
            Some(user) => output::line(&format!("{user} is logged out of {}", client.host())),
            None => bail!("nobody is logged in at {}", client.host()),
        },
        User::Whoami(args) => whoami(client, &args).await,
    }
}

fn spec(args: &UserAdd) -> types::UserSpec {
    types::UserSpec { name: args.name.clone(), role: args.role.clone(), stacks: args.stack.clone() }
}

async fn ls(client: &Client, args: &ListArgs) -> Result<()> {
    let filters = list::filters(&args.filter)?;
    let mut table = List::new(&[
        ("NAME", "Name"),
        ("ID", "ID"),
        ("ROLE", "Role"),
        ("STACKS", "Stacks"),
        ("PASSWORD", "HasPassword"),
        ("TOKENS", "Tokens"),
        ("CERTIFICATES", "Certificates"),
        ("CREATED", "CreatedAt"),
    ]);
    let now = list::now();
    for user in client.users(&[("filters", &filters)]).await? {
        let password = if user.has_password { "yes" } else { "no" };
        table.row(vec![
            user.spec.name,
            user.id,
            user.spec.role,
            user.spec.stacks.join(", "),
            password.to_owned(),
            user.tokens.len().to_string(),
            user.certificates.iter().filter(|known| !known.revoked).count().to_string(),
            format!("{} ago", list::human(now.since(user.created_at.timestamp()))),
        ]);
    }
    table.print(args)
}

async fn token(client: &Client, command: UserToken) -> Result<()> {
    match command {
        UserToken::Create { user, label, life: Life { expires } } => {
            let lifetime_seconds = expires.0.map_or(0, |life| life.as_secs());
            let wanted = types::NewUserToken { label, lifetime_seconds };
            let given = client.user_token_create(&user, &wanted).await?;
            output::line(&given.token)?;
            let expiry = match given.expires_at {
                Some(time) => format!("it expires at {time}"),
                None => "it does not expire".to_owned(),
            };
            output::warning(&format!("the token is not shown again; {expiry}"));
            Ok(())
        }
        UserToken::Ls { user, list: args } => {
            let mut table = List::new(&[
                ("ID", "ID"),
                ("LABEL", "Label"),
                ("CREATED", "CreatedAt"),
                ("EXPIRES", "ExpiresAt"),
            ]);
            let now = list::now();
            for token in client.user(&user).await?.tokens {
                let expires = match token.expires_at.map(|time| time.timestamp()) {
                    None => "never".to_owned(),
                    Some(at) if at <= now => "expired".to_owned(),
                    Some(at) => format!("in {}", list::human(at.since(now))),
                };
                let created = format!("{} ago", list::human(now.since(token.created_at.timestamp())));
                table.row(vec![token.id, token.label, created, expires]);
            }
            table.print(&args)
        }
        UserToken::Rm { user, tokens } => {
            each(&tokens, async |token| Ok(client.user_token_remove(&user, token).await?)).await
        }
    }
}

/// Reads a line that nobody must see: from standard input as it is, or from a terminal that does not show it.
pub(super) fn secret(prompt: &str, piped: bool) -> Result<String> {
    let mut line = String::new();
    let stdin = std::io::stdin();
    if piped || !stdin.is_terminal() {
        stdin.lock().read_line(&mut line).context("cannot read standard input")?;
    } else {
        output::prompt(prompt)?;
        let _silent = crate::terminal::silent()?;
        stdin.lock().read_line(&mut line).context("cannot read the terminal")?;
        output::line("")?;
    }
    let secret = line.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("nothing was typed");
    }
    Ok(secret.to_owned())
}

async fn passwd(client: &Client, args: &UserPasswd) -> Result<()> {
    let password = if args.remove { String::new() } else { secret("New password: ", args.password_stdin)? };
    if !args.remove && !args.password_stdin && std::io::stdin().is_terminal() {
        let again = secret("Again: ", false)?;
        if again != password {
            bail!("the two passwords differ; nothing was changed");
        }
    }
    client.user_password(&args.name, &password).await?;
    output::line(&args.name)
}

/// The key never leaves this host: only what proves that it is ours is sent.
async fn cert(client: &Client, args: &UserCert) -> Result<()> {
    let (key_path, cert_path) = (args.out.join("key.pem"), args.out.join("cert.pem"));
    for path in [&key_path, &cert_path] {
        if path.exists() {
            bail!("{} is there already; hint: choose another folder, or remove it", path.display());
        }
    }
    let key = pki::NodeKey::generate()?;
    let request =
        types::UserCertificateRequest { csr: key.csr_pem()?, lifetime_seconds: args.expires.as_secs() };
    let issued = client.user_certificate(&args.name, &request).await?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    for (path, text) in [(&key_path, key.pem()), (&cert_path, issued.chain)] {
        let failed = || format!("cannot write {}", path.display());
        let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        open.and_then(|mut file| file.write_all(text.as_bytes())).with_context(failed)?;
        output::line(&path.display().to_string())?;
    }
    output::warning(&format!(
        "{} also needs ca.pem, which says whom to believe: the one that the operator of the daemon's address gives",
        args.out.display()
    ));
    Ok(())
}

async fn revoke(client: &Client, args: &UserRevoke) -> Result<()> {
    let certificates = each(&args.certificate, async |serial| {
        // As openssl writes them.
        let serial = serial.replace(':', "").to_lowercase();
        Ok(client.user_certificate_revoke(&args.name, &serial).await?)
    });
    let certificates = certificates.await;
    let tokens = each(&args.token, async |id| Ok(client.user_token_remove(&args.name, id).await?)).await;
    certificates.and(tokens)
}

async fn login(client: &Client, args: &UserLogin) -> Result<()> {
    let token = match &args.name {
        Some(name) => {
            let login = types::UserLogin {
                name: name.clone(),
                password: secret("Password: ", args.password_stdin)?,
                token: types::NewUserToken {
                    label: format!("login from {}", rustix::system::uname().nodename().to_string_lossy()),
                    lifetime_seconds: args.expires.as_secs(),
                },
            };
            client.user_login(&login).await?.token
        }
        None => secret("Token: ", args.token_stdin)?,
    };
    // Asked before it is kept: a mistyped one is told now.
    let me = client.clone().with_token(&token)?.who_am_i().await?;
    Logins::read()?.keep(client.host(), &me.name, &token)?;
    output::line(&format!("{} is logged in at {} (role {})", me.name, client.host(), me.role))
}

async fn whoami(client: &Client, args: &FormatArgs) -> Result<()> {
    let me = client.who_am_i().await?;
    match args.format.as_deref() {
        Some(format) => output::line(&list::render(format, &serde_json::to_value(&me)?)?),
        None if me.stacks.is_empty() => output::line(&format!("{}: {}", me.name, me.role)),
        None => output::line(&format!("{}: {} of {}", me.name, me.role, me.stacks.join(", "))),
    }
}

pub(crate) async fn audit(client: &Client, args: &AuditArgs) -> Result<()> {
    let since = super::logs::moment(args.since.as_deref())?;
    let query = [
        ("since", since.as_str()),
        ("user", args.user.as_deref().unwrap_or_default()),
        ("object", args.object.as_deref().unwrap_or_default()),
    ];
    let mut table = List::new(&[
        ("AT", "At"),
        ("PERSON", "Person"),
        ("FROM", "From"),
        ("ACTION", "Action"),
        ("OBJECT", "Object"),
        ("VERSION", "Version"),
        ("MESSAGE", "Message"),
    ]);
    let records = client.audit(&query).await?;
    for record in records {
        let object = serde_json::to_value(&record)?;
        let values = vec![
            record.at.to_string(),
            record.person,
            record.from,
            record.action,
            record.object,
            format!("{} -> {}", record.before, record.after),
            record.message,
        ];
        table.row_as(values, object);
    }
    table.print(&ListArgs { format: args.format.clone(), ..ListArgs::default() })
}
