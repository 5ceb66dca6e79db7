from flows.engine import console


def test_redirected_output_is_complete_and_short(capsys, monkeypatch):
    # As if every unit took an hour.
    hours = iter(range(10**9))
    monkeypatch.setattr(console.time, "monotonic", lambda: 3600.0 * next(hours))
    lines = []
    with console.redirect_output(lines.append):
        console.print_table("Stages", ["stage", "units"], [["crop_faces", 1000]])
        console.print_line("a line\nof two")
        console.print_error("an error")
        with console.progress_of("crop_faces", 1000) as advance:
            for _ in range(1000):
                advance(2)
    table, line, error, *progress = lines
    assert "crop_faces" in table and "1,000" in table and table.count("\n") == 5
    assert (line, error) == ("a line\\nof two", "an error")
    assert progress == [f"crop_faces: {done} of 1000 done, 2 failed" for done in range(100, 1001, 100)]
    assert capsys.readouterr() == ("", "")
    console.print_line("to be seen")
    assert capsys.readouterr().out == "to be seen\n"
