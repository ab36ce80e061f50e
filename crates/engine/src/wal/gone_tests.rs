use super::*;
use crate::verify::fixture::{Stored, fill, size, wal_from};

#[test]
fn what_an_index_names_and_nobody_has_is_gone() {
    let stored = Stored::new();
    let mut wal = wal_from(3);
    for time in 0..5 {
        wal.commit(900, time);
        fill(&mut wal);
    }
    stored.put_wal(&wal);
    let gone = |survey: &Survey| Moments::new(&stored.archive, size()).gone(survey).unwrap();
    let survey = || Survey::take(&stored.archive, &|| Ok(())).unwrap();
    assert!(gone(&survey()).is_empty());
    stored.index(&wal);
    assert!(gone(&survey()).is_empty());
    // Stored after the listing.
    let before = Survey { timelines: BTreeMap::new(), ..survey() };
    assert!(gone(&before).is_empty());
    for number in [4u64, 6, 7] {
        let found =
            stored.archive.find(&format!("{number:024X}").replacen("00000000", "00000001", 1)).unwrap();
        stored.archive.storage().delete(&found.unwrap().path).unwrap();
    }
    let run = |first, last| Run { first, last };
    assert_eq!(gone(&survey()), BTreeMap::from([(Timeline(1), vec![run(4, 4), run(6, 7)])]));
}

#[test]
fn lines_that_name_no_segment_of_the_folder_say_nothing() {
    let stored = Stored::new();
    stored.put_wal(&{
        let mut wal = wal_from(3);
        wal.commit(900, 1);
        wal
    });
    let survey = Survey::take(&stored.archive, &|| Ok(())).unwrap();
    let mut index =
        b"{\"format\":1}\n{\"segment\":\"\xFF\n{\"segment\":\"000000020000000000000009\"}\n".to_vec();
    index.extend_from_slice(b"{\"segment\":\"00000001000000000000FFFF\"}\nnull\n[]\n");
    index.extend_from_slice(b"{ \"commits\": 1, \"segment\": \"000000010000000000000009\" }\n");
    stored.put_plain("00000001/00000000/index.jsonl", &index);
    let gone = Moments::new(&stored.archive, size()).gone(&survey).unwrap();
    assert_eq!(gone, BTreeMap::from([(Timeline(1), vec![Run { first: 9, last: 9 }])]));
}
