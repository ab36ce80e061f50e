//! Command-line behaviour, kept as files in `tests/cmd`: arguments, output, exit code. `PGARK_REPO` is a golden
//! repository. `TRYCMD=overwrite` writes what the program says now.

use std::path::Path;

#[test]
fn command_line() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/v1/zstd");
    let golden = golden.canonicalize().expect("the golden repository");
    trycmd::TestCases::new()
        .env("PGARK_REPO", format!("file://{}", golden.display()))
        .env("LC_ALL", "C.UTF-8")
        .insert_var("[REPO]", golden.display().to_string())
        .expect("a variable")
        .case("tests/cmd/*.trycmd");
}
