from data_contracts.store.store import Store
from tasks.results.prediction_folder import PredictionRecord, describe_rewritten, write_record


def test_files_that_were_written_again_besides_the_requested_ones_are_counted(tmp_path):
    target, old, new = (
        Store(tmp_path),
        PredictionRecord(made_from="1", files=()),
        PredictionRecord(made_from="2", files=()),
    )
    write_record(target, {"asked": new, "other": new, "same": old, "first": new})
    before = {"asked": old, "other": old, "same": old, "removed": old}
    line = describe_rewritten(target, before, ["asked.parquet", "asked.csv"])
    assert line == f"note: 1 other subject in {tmp_path} written again with these heads and settings"
    assert describe_rewritten(target, {"same": old}, []) is None
