//! What is in the program, for programs that look for it: a list in CycloneDX's JSON, version 1.6.
//! *Source:* cyclonedx.org, "bom-1.6.schema.json"; package-url, "cargo".

use super::{Release, pack, supplied::Supplied};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Returns the list.
pub(crate) fn text(release: &Release) -> Result<String> {
    let (program, libraries): (Vec<_>, Vec<_>) =
        release.supplied.iter().partition(|one| one.name == "rswarm" && one.checksum.is_none());
    let program = program.first().context("rswarm is not among what the program is made of")?;
    let components: Vec<Value> = libraries.into_iter().map(component).collect();
    let dependencies: Vec<Value> = release
        .supplied
        .iter()
        .map(|one| {
            let needs = one.needs.iter().map(|(name, version)| purl(name, version));
            json!({ "ref": purl(&one.name, &one.version), "dependsOn": needs.collect::<Vec<_>>() })
        })
        .collect();
    let mut whole = component(program);
    whole["type"] = "application".into();
    whole["hashes"] = json!([{ "alg": "SHA-256", "content": pack::sha256(&release.program) }]);
    whole["properties"] = json!([{ "name": "cargo:target", "value": release.target.triple() }]);
    let made = OffsetDateTime::from_unix_timestamp(release.epoch.into())?.format(&Rfc3339)?;
    let mut list = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "timestamp": made, "component": whole },
        "components": components,
        "dependencies": dependencies,
    });
    list["serialNumber"] = serial(&list).into();
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

fn purl(name: &str, version: &str) -> String {
    // A version's `+` is a blank to who reads it as an address.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(one: &Supplied) -> Value {
    let purl = purl(&one.name, &one.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": one.name,
        "version": one.version,
        "scope": "required",
        "licenses": [{ "expression": one.licence }],
        "purl": purl,
    });
    if let Some(sum) = &one.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    if let Some(place) = &one.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": place }]);
    }
    component
}

/// Returns an identity that follows from the content: the same list has the same one. *Source:* RFC 9562, 5.8.
fn serial(list: &Value) -> String {
    let sum = pack::sha256(list.to_string().as_bytes());
    format!("urn:uuid:{}-{}-8{}-8{}-{}", &sum[..8], &sum[8..12], &sum[13..16], &sum[17..20], &sum[20..32])
}
