//! Documents of arbitrary bytes, and the receipts and histograms that such bytes may be: what is accepted is bounded, and reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runferry_wire::Doc;
use runferry_wire::histogram::{Histogram, MAX_BINS};
use runferry_wire::receipt::{MOST_METRICS, MOST_NAME_BYTES, Receipt};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(doc) = Doc::decode(bytes) {
        assert!(doc.node_count() <= bytes.len());
        let again = doc.encode();
        assert_eq!(Doc::decode(&again).expect("just encoded").encode(), again);

        if let Some((covers, receipt)) = Receipt::from_doc(&doc) {
            assert!(receipt.metrics().count() <= MOST_METRICS);
            assert!(receipt.metrics().map(|(name, _)| name.len()).sum::<usize>() <= MOST_NAME_BYTES);
            assert_eq!(Receipt::from_doc(&receipt.to_doc(covers)), Some((covers, receipt)));
        }
    }
    if let Ok(histogram) = Histogram::decode(bytes) {
        assert!(histogram.counts.len() <= MAX_BINS && histogram.edges.len() == histogram.counts.len() + 1);
        let again = histogram.encode().expect("its bins are allowed");
        assert_eq!(Histogram::decode(&again).expect("just encoded").encode().as_ref(), Ok(&again));
    }
});
