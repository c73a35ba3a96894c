"""Pictures as files: whole ones, in folders that need not be there."""

from lit_rl.run.figures import new_figure, save_figure


def test_a_figure_becomes_a_file(tmp_path):
    path = tmp_path / "a" / "b" / "picture.png"
    for height in (2, 3):
        figure = new_figure(4, height)
        figure.subplots().plot([1, 2], [3, 4])
        save_figure(path, figure)
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG") and int.from_bytes(data[20:24]) == 140 * height
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
