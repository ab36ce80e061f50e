use super::super::validate_fixture::{Form, Stored, files_of};
use super::*;
use pg_ark_contract::settings::Checksum;

const CODECS: [&str; 4] = ["zstd:1", "lz4", "gzip:1", "none"];
const LEVELS: [Level; 3] = [Level::Record, Level::Data, Level::Pages];

#[test]
fn an_undamaged_repository_has_no_row() {
    for compression in CODECS {
        for checksum in [Checksum::Crc32c, Checksum::Sha256] {
            for (frame, volume_size) in [(50_000, 1 << 40), (3000, 30_000), (16 << 20, 1 << 40)] {
                let stored = Stored::new(Form { compression, checksum, frame, volume_size });
                for level in LEVELS {
                    for (one, jobs) in [(true, 4), (false, 1)] {
                        let rows = stored.rows(one, level, jobs);
                        assert!(rows.is_empty(), "{compression} {checksum:?} {frame} {level:?}: {rows:#?}");
                    }
                }
            }
        }
    }
}

#[test]
fn golden_repositories_lack_their_seals_and_nothing_else() {
    for codec in ["zstd", "lz4", "gzip"] {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(codec);
        let url = format!("file://{}", golden.display());
        let cluster = crate::repository::Repository::open(&url).unwrap().cluster("main").unwrap();
        for level in LEVELS {
            let request = Request { backup: None, level, jobs: 2 };
            let rows = validate(&cluster, &request, &super::super::validate_fixture::Deaf).unwrap();
            assert_eq!(rows.len(), 3, "{rows:#?}");
            for row in rows {
                assert!(row.severity == Severity::Warning && row.finding.contains("has no seal"), "{row:?}");
            }
        }
    }
}
