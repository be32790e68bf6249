//! Advice in words of the command: its verbs and flags.

use crate::save::SaveFault;
use crate::snapshot::SnapshotFault;
use crate::{Advice, AttestationFault, ConversionFault, DocumentFault, Error, snapshot};

use super::program;

/// What the reader can do.
pub(crate) fn of(error: &Error) -> Option<String> {
    if let Some(DocumentFault::NotAnImage(kind)) = error.detail()
        && kind.as_ref() == snapshot::MEDIA_TYPE
    {
        let words = "it is a snapshot: `plyfold snapshot load NAME --out DIR` makes its disks again";
        return Some(program::named(words));
    }
    if let Some(SnapshotFault::Foreign(_)) = error.detail() {
        let words = "`plyfold snapshot list` lists those in the store; `plyfold materialize IMAGE --as FORMAT --out DIR` makes disks of an image";
        return Some(program::named(words));
    }
    if let Some(SnapshotFault::InUse(_)) = error.detail() {
        let words = "end the virtual machine, and unmount the disk; --live saves it as a power cut would leave it, of a machine that is paused";
        return Some(words.to_owned());
    }
    if let Some(AttestationFault::Text(_)) = error.detail() {
        return Some("--format raw writes it as it is stored".to_owned());
    }
    match error.detail() {
        Some(SaveFault::Index) => return Some("choose one with --platform".to_owned()),
        Some(SaveFault::Holds(_)) => return Some("leave --format docker out".to_owned()),
        _ => {}
    }
    if let Some(words) = error.detail().and_then(of_conversion) {
        return Some(words.to_owned());
    }
    let words = match error.advice() {
        Some(advice) => worded(advice),
        None => error.hint()?.to_owned(),
    };
    Some(program::named(&words))
}

fn of_conversion(fault: &ConversionFault) -> Option<&'static str> {
    Some(match fault {
        ConversionFault::Docker(_) => {
            "copy it without --format docker; --platform chooses one image of an index, and --compress gzip changes layers that are zstd"
        }
        ConversionFault::Referrers => {
            "leave --referrers out, and sign what was copied; or leave out --format and --compress"
        }
        ConversionFault::Sparse => "--sparse rewrite makes an index of what is copied",
        ConversionFault::ZstdInDocker => "choose --compress gzip, or add --format oci",
        _ => return None,
    })
}

/// The message, and what the reader can do.
pub(crate) fn on_one_line(error: &Error) -> String {
    let message = error.message();
    of(error).map_or_else(|| message.to_owned(), |hint| format!("{message}; {hint}"))
}

fn worded(advice: &Advice) -> String {
    let option = |key: &str, value: &str| format!("-o {key}={value}");
    if let Some(words) = advice.worded(option, |name| format!("--as {name}")) {
        return words;
    }
    let words = match advice {
        Advice::CheckCredentials => {
            "`plyfold login HOST` stores credentials; check their spelling and their age"
        }
        Advice::ChoosePart => {
            "--platform chooses images of it; --sparse rewrite copies an index of what is there, with another digest"
        }
        Advice::ChoosePlatform { available } => {
            return format!("it is available for {}; choose one with --platform", available.join(", "));
        }
        Advice::Collect => "`plyfold gc` removes what no image needs",
        Advice::CollectLater => "`plyfold gc` removes it afterwards",
        Advice::ConvertLayer => {
            "tar:FILE is an image of a plain root file system; `plyfold layer` converts a tar as it is"
        }
        Advice::CopyFiles => "ask for copies: --copy",
        Advice::DeleteByDigest { image } => {
            return format!(
                "`plyfold inspect --remote {image}` shows the digest; deleting that takes all tags of it along"
            );
        }
        Advice::FreeSpace => {
            "the disk is full: free some space, or choose another place: --store, --out, the target"
        }
        Advice::GiveCredentials { registry } => {
            return format!("`plyfold login {registry}` stores them, or pass -o username=… -o password=…");
        }
        Advice::GiveFolder => "point --store at a directory that can be written to",
        Advice::LeaveReferrers => {
            "the images are complete: --no-referrers loads them without what refers to them"
        }
        Advice::LoadBase { bases } => {
            return format!(
                "the archive was made against {}: `plyfold load` that first, and then the archive",
                bases.join(", ")
            );
        }
        Advice::PullPlatform { platform, here } => {
            let other = match here.as_slice() {
                [] => String::new(),
                here => format!("; the store has it for {}: choose one with --platform", here.join(", ")),
            };
            return format!("`plyfold pull IMAGE --platform {platform}` fetches it{other}");
        }
        Advice::Pull { image } => return format!("`plyfold pull {image}` fetches it"),
        Advice::PushPart => {
            "pull what is missing, or push one platform (--platform), \
             or an index of what is here (--rewrite-index)"
        }
        Advice::RaiseLimit { .. } => {
            "if you trust the image, allow it more memory by a larger --max-metadata (the default is 64M)"
        }
        Advice::RepairContent => {
            "`plyfold verify --repair` quarantines damaged content, and the next pull fetches it again"
        }
        Advice::RepairNames => {
            "`plyfold verify --repair` sets the file aside and goes on with every name that can still be read"
        }
        Advice::RewriteIndex => {
            "--sparse rewrite copies an index of what is copied, with another digest; --sparse keep the index as it is, where the target takes it"
        }
        Advice::StoreAgain => "`plyfold login HOST` stores it again",
        Advice::StoreCredentials => "`plyfold login HOST` stores credentials",
        Advice::WriteElsewhere => "nothing can be written there: point --store or --out elsewhere",
        other => return other.to_string(),
    };
    words.to_owned()
}
