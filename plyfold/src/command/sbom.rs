//! `sbom`: what attests to an image.

use serde_json::json;

use super::progress::{Doing, short};
use super::reading::Policy;
use super::sbom_args::{Form, Sbom};
use super::session::Session;
use super::size::Size;
use super::store_use::not_there;
use super::terminal::{table, write};
use crate::{Attestation, Digest, Error, ErrorKind, PullOptions, PullPolicy, Result, printable};

pub(crate) async fn show(session: &Session, options: Sbom) -> Result<()> {
    let form = options.format;
    if options.provenance && matches!(form, Some(Form::Spdx | Form::CycloneDx)) {
        return Err(Error::config("--provenance has no form but --format raw"));
    }
    let mut found = found(session, &options).await?;
    let there: Vec<String> = found.iter().map(|one| one.kind().to_string()).collect();
    found.retain(|one| form.is_none_or(|form| options.provenance || form.takes(one.kind())));
    let (what, several) =
        if options.provenance { ("provenance", "documents of provenance") } else { ("SBOM", "SBOMs") };
    if let Some(digest) = &options.digest {
        let has_some = !found.is_empty();
        found.retain(|one| begins(one.content().digest(), digest));
        if has_some && found.is_empty() {
            let message = format!("the image has no {what} whose digest begins with {}", printable(digest));
            return Err(Error::not_found(message)
                .with_image(printable(&options.image))
                .with_hint("--list shows what there is, with --json the whole digests"));
        }
    }
    if options.list {
        return list(session, &found);
    }
    match found.as_slice() {
        [] => Err(none(what, &there).with_image(printable(&options.image))),
        [_, _, ..] if !options.all => {
            let names: Vec<String> = found.iter().map(named).collect();
            let message = format!("the image has {} {several}", found.len());
            let hint = format!("take all of them by --all, or one by --digest: {}", names.join(", "));
            Err(Error::new(ErrorKind::Ambiguous, message)
                .with_image(printable(&options.image))
                .with_hint(hint))
        }
        chosen => content(session, chosen, form == Some(Form::Raw)).await,
    }
}

async fn found(session: &Session, options: &Sbom) -> Result<Vec<Attestation>> {
    if let (Some(store), Some(Policy::Never)) = (&session.absent, options.policy) {
        return Err(not_there(store));
    }
    let context = &session.context;
    let image = context.image(&options.image)?;
    let is_remote = image.is_remote(&context.backends);
    let by_default = if is_remote { PullPolicy::IfMissing } else { PullPolicy::Always };
    let (images, text) = (&session.images, image.text());
    let asked = context.telling(Doing::Fetch, |progress| async move {
        let pulling = PullOptions {
            platform: context.platform(),
            policy: options.policy.map_or(by_default, Into::into),
            progress,
            retry: context.retry,
            ..PullOptions::default()
        };
        if options.provenance {
            return images.provenance(&text, &pulling).await;
        }
        images.sboms(&text, &pulling).await
    });
    asked.await.map_err(|e| match options.policy {
        Some(Policy::Never) if *e.kind() == ErrorKind::NotFound && e.advice().is_none() => {
            e.with_better_hint("the store does not have all that attests to it: leave --policy never out")
        }
        None | Some(Policy::IfMissing) if is_remote && e.is_retryable() => {
            e.with_better_hint("--policy never asks the store alone")
        }
        _ => e,
    })
}

/// The contents, one behind the other.
async fn content(session: &Session, chosen: &[Attestation], is_raw: bool) -> Result<()> {
    for one in chosen {
        let bytes = if is_raw {
            session.context.asking("attestation", || one.statement()).await?
        } else {
            session.context.asking("attestation", || one.predicate()).await?
        };
        write(&bytes)?;
        // One that is written as it is stored has its digest.
        if !is_raw || chosen.len() > 1 {
            write(b"\n")?;
        }
    }
    Ok(())
}

fn list(session: &Session, found: &[Attestation]) -> Result<()> {
    let documents = found.iter().map(|one| {
        json!({
            "kind": one.kind().to_string(),
            "predicate_type": one.predicate_type(),
            "origin": one.origin().to_string(),
            "media_type": one.content().media_type(),
            "digest": one.content().digest(),
            "size": one.content().size(),
            "manifest": one.manifest().digest(),
            "subject": one.subject(),
        })
    });
    session.terminal.show(&documents.collect::<Vec<_>>(), || {
        let rows = found.iter().map(|one| {
            let kind = printable(one.predicate_type().unwrap_or_default());
            let digest = short(one.content().digest()).to_owned();
            [kind, one.origin().to_string(), Size(one.content().size()).to_string(), digest]
        });
        table(["PREDICATE", "ORIGIN", "SIZE", "DIGEST"], &rows.collect::<Vec<_>>())
    })
}

/// Whether a digest begins so, with its algorithm or without.
fn begins(digest: &Digest, start: &str) -> bool {
    digest.digest().starts_with(start) || digest.as_ref().starts_with(start)
}

fn named(one: &Attestation) -> String {
    format!("{} {} ({})", one.kind(), short(one.content().digest()), one.origin())
}

/// What is said of nothing, with the forms that there are.
fn none(what: &str, there: &[String]) -> Error {
    if there.is_empty() {
        return Error::not_found(format!("the image has no {what}")).with_hint(
            "`docker buildx build --sbom=true --provenance=true` makes both, cosign and oras attach them",
        );
    }
    let mut there = there.to_vec();
    there.sort();
    there.dedup();
    Error::not_found(format!("the image has no {what} of this form"))
        .with_hint(format!("it has one as {}", there.join(" and as ")))
}
