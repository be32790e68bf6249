//! Two machines with a bucket behind their stores.

use super::pulls::UPPER;
use super::shared::{pushed, two_layers};
use crate::compare::bench::{Bench, Rival};
use crate::compare::bucket::Bucket;
use crate::compare::check;
use crate::compare::program::Program;
use crate::compare::record::Record;
use crate::result::Result;

const FLEET: &str = "s3://bucket/fleet";

pub(crate) fn second_machine(bench: &Bench) -> Result<Record> {
    let image = pushed(bench, &two_layers(bench)?, "two")?;
    let bucket = bucket(bench)?;
    let machine = |name: &str, fleet: &[&str]| {
        let (store, out) = (bench.at(&format!("{name}-store")), bench.at(&format!("{name}-disks")));
        let words = ["materialize", "--quiet", &image, "--as", "vmdk", "--upper", UPPER];
        let made = bucket.env().arg(&bench.plyfold.path).args(words).args(fleet);
        made.arg("--store").out(&store).arg("--out").out(&out)
    };
    let first = machine("first", &["--fleet", FLEET]).after(bucket.emptied());
    first.run()?;
    let rivals = vec![
        Ok(Rival::new("the first machine, from the registry into the bucket", &bench.plyfold, first)
            .goal(0.5)),
        Ok(Rival::new("a machine without a bucket, from the registry", &bench.plyfold, machine("lone", &[]))),
    ];
    let title = (
        "A second machine of a fleet: from a bucket to disks",
        "the image of `pull`, and the S3 service of the tests",
    );
    let ours = ("plyfold materialize, with what is in the bucket", machine("second", &["--fleet", FLEET]));
    bench.contest(title, ours, rivals, || {
        for file in ["layer-00.erofs", "layer-01.erofs", "merged.erofs"] {
            let of = |name: &str| check::file_digest(&bench.at(&format!("{name}-disks")).join(file));
            if of("second")? != of("lone")? {
                return Err(format!("{file} differs between the machines").into());
            }
        }
        Ok("Checked: the disks have the same bytes. CPU time is that of plyfold alone; the service runs on the same cores.".to_owned())
    })
}

pub(crate) fn again(bench: &Bench) -> Result<Record> {
    let image = pushed(bench, &two_layers(bench)?, "two")?;
    let store = bench.at("kept");
    let pull = |fleet: &[&str]| {
        // Nothing listens there: a request would be a warning.
        let words = ["AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ALLOW_HTTP=true", "AWS_REGION=us-east-1"];
        let pull = Program::new("env").args(words).arg(&bench.plyfold.path).args(["pull", "--quiet", &image]);
        pull.args(fleet).arg("--store").arg(&store)
    };
    let alone = Rival::new("plyfold pull, without a bucket", &bench.plyfold, pull(&[])).goal(1.2);
    alone.program.run()?;
    let title = (
        "Pull of what is here, with a bucket behind the store",
        "the image of `pull`, of which everything is here",
    );
    bench.contest(title, ("plyfold pull --fleet", pull(&["--fleet", FLEET])), vec![Ok(alone)], || {
        let script = "warnings=$(\"$@\" 2>&1 >/dev/null); [ -z \"$warnings\" ]";
        Program::shell(script).args(pull(&["--fleet", FLEET]).words()).run()?;
        Ok("Checked: nothing listens at the bucket's address, and there is no warning: no request is made."
            .to_owned())
    })
}

fn bucket(bench: &Bench) -> Result<Bucket> {
    let service = bench.peers.find("plyfold-s3-service").map_err(crate::compare::bench::Missing)?;
    Bucket::start(&service.path, &bench.at("bucket"))
}
