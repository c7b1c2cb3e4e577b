from dataclasses import replace

from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.query import open_run
from capfilt.report.slices import MAX_ROWS, slice_run


def test_the_largest_parts_stand_alone_and_all_others_together(tmp_path):
    """Domain n has 2 n samples, so that the least ones are left over; every second web text is kept."""
    hosts = [n for n in range(1, 21) for _ in range(2 * n)]
    shard = replace(SHARD, samples=len(hosts))
    run = new_run(tmp_path, [shard])
    texts = [[web(n, n % 2)] + [synthetic(n)] * (host < 4) for n, host in enumerate(hosts)]
    records = [record(n, url=f"http://www.host{host}.org/{n}") for n, host in enumerate(hosts)]
    complete(run, shard, records, [text for both in texts for text in both])

    with open_run(run.root) as opened:
        _, domains, _ = slice_run(opened)

    assert [row.value for row in domains.rows] == [f"host{n}.org" for n in range(20, 6, -1)] + ["6 others"]
    assert len(domains.rows) == MAX_ROWS
    assert (domains.rows[0].scored, domains.rows[0].kept) == ({"web": 40}, {"web": 20})
    assert domains.rows[-1].scored == {"web": 42, "synthetic": 12}
    assert domains.rows[-1].kept == {"web": 21, "synthetic": 12}
