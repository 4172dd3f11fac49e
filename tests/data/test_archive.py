"""Files from an archive: their addresses, and that every fault ends in the very bytes or in a clear word."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from archive_server import Fault, left_over
from native_files import rows_of, write_apstar, write_desi, write_galah_ccd, write_sdss

from spectral_tokenizer.data import SURVEYS, SpectrumFileError, load_survey, prepare_survey, survey_report
from spectral_tokenizer.data.archive import Archive, read_checksums


# What an identifier stands for


@pytest.mark.parametrize(
    ("survey", "identifier", "address"),
    [
        ("sdss", "26/266-51602-1", "sdss/spectro/redux/26/spectra/lite/0266/spec-0266-51602-0001.fits"),
        ("sdss", "104/spec-2488-54149-0001", "sdss/spectro/redux/104/spectra/lite/2488/spec-2488-54149-0001.fits"),
        (
            "sdss",
            "v5_13_2/3586-55181-0890",
            "eboss/spectro/redux/v5_13_2/spectra/lite/3586/spec-3586-55181-0890.fits",
        ),
        ("desi", "main-dark-10000", "healpix/main/dark/100/10000/coadd-main-dark-10000.fits"),
        ("desi", "sv3-bright-99", "healpix/sv3/bright/0/99/coadd-sv3-bright-99.fits"),
        ("desi", "0-1000-thru20210517", "tiles/cumulative/1000/20210517/coadd-0-1000-thru20210517.fits"),
        (
            "apogee",
            "apo25m/M53/2M13121982+1731016",
            "redux/dr17/stars/apo25m/M53/apStar-dr17-2M13121982+1731016.fits",
        ),
        (
            "apogee",
            "lco25m/293-37-C/2M03174068-7748459",
            "redux/dr17/stars/lco25m/293-37-C/asStar-dr17-2M03174068-7748459.fits",
        ),
        (
            "apogee",
            "aspcapStar/apo25m/M53/2M13121982+1731016",
            "aspcap/dr17/synspec_rev1/apo25m/M53/aspcapStar-dr17-2M13121982+1731016.fits",
        ),
        ("galah", "131116000501001", "spectra/tar_files/131116_com.tar.gz"),
    ],
)
def test_addresses(survey, identifier, address):
    """As the surveys' pages and users' programs have them; none can be asked from here."""
    assert SURVEYS[survey].address(identifier).path == address


def test_public_archives():
    assert {name: survey.ARCHIVE for name, survey in SURVEYS.items() if survey.ARCHIVE} == {
        "sdss": "https://data.sdss.org/sas/dr17",
        "desi": "https://data.desi.lbl.gov/public/dr1/spectro/redux/iron",
        "galah": "https://cloud.datacentral.org.au/teamdata/GALAH/public/GALAH_DR3",
        "apogee": "https://data.sdss.org/sas/dr17/apogee/spectro",
    }


def test_companions_and_checksums():
    address = SURVEYS["desi"].address("main-dark-10000")
    folder = "healpix/main/dark/100/10000"
    assert address.companions == (f"{folder}/redrock-main-dark-10000.fits",)
    assert address.checksums == f"{folder}/redux_iron_healpix_main_dark_100_10000.sha256sum"
    assert SURVEYS["galah"].address("131116000501001").members[3] == "1311160005010014.fits"


@pytest.mark.parametrize(
    ("survey", "identifier", "message"),
    [
        ("sdss", "3586-55181-1", "found no RUN2D; expected RUN2D/PLATE-MJD-FIBER"),
        ("apogee", "2M13121982+1731016", "found no telescope and field; expected TELESCOPE/FIELD/APOGEE_ID"),
    ],
)
def test_an_identifier_that_says_too_little(survey, identifier, message):
    with pytest.raises(ValueError, match=f"{identifier.replace('+', '.')}: {message}"):
        load_survey(survey, [identifier])


def test_neither_a_path_nor_an_identifier(tmp_path):
    for survey, entry in (("galah", "12345"), ("desi", "39627000000000000"), ("sdss", "a/b"), ("apogee", "x.fits")):
        with pytest.raises(FileNotFoundError, match=f"no such file or folder, and no identifier: {entry}"):
            load_survey(survey, entry, cache_dir=tmp_path)


# Surveys' files by identifier


def serve_desi(server, folder, name, **arguments):
    """A healpix of the archive: coadd, redrock and checksums."""
    (folder / "desi").mkdir(parents=True, exist_ok=True)
    survey, program, pixel = name.split("-")
    place = f"healpix/{survey}/{program}/{int(pixel) // 100}/{pixel}"
    lines = ""
    for kind in ("coadd", "redrock"):
        content = (folder / "desi" / f"{kind}-{name}.fits").read_bytes()
        server.files[f"{place}/{kind}-{name}.fits"] = content
        lines += f"{hashlib.sha256(content).hexdigest()}  {kind}-{name}.fits\n"
    sums = f"{place}/redux_iron_{place.replace('/', '_')}.sha256sum"
    server.files[sums] = lines.encode()
    return place


def as_tar(files):
    """A tar.gz of files by name, in the folders of a reduction."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"140101/standard/com/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def simulated_archive(server, simulated_surveys, tmp_path):
    """The simulated files at the places of the archive; survey -> identifiers."""
    identifiers = {"sdss": [], "desi": [], "galah": [], "apogee": []}
    for path in simulated_surveys["sdss"].glob("spec-*.fits"):
        plate, mjd, fiber = path.stem.split("-")[1:]
        server.files[f"sdss/spectro/redux/26/spectra/lite/{plate}/{path.name}"] = path.read_bytes()
        identifiers["sdss"].append(f"26/{int(plate)}-{mjd}-{int(fiber)}")
    for path in simulated_surveys["desi"].glob("coadd-*.fits"):
        name = path.stem.removeprefix("coadd-")
        serve_desi(server, simulated_surveys["desi"].parent, name)
        identifiers["desi"].append(name)
    nights = {}
    for path in simulated_surveys["galah"].rglob("[0-9]*.fits*"):
        if len(path.name.split(".")[0]) == 16:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            nights.setdefault(path.name[:6], {})[path.name.removesuffix(".gz")] = content
            identifiers["galah"].append(path.name[:15])
    for night, files in nights.items():
        server.files[f"spectra/tar_files/{night}_com.tar.gz"] = as_tar(files)
    for path in simulated_surveys["apogee"].rglob("apStar-*.fits*"):
        star = path.name.partition(".fits")[0].split("-", 2)[2]
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        server.files[f"redux/dr17/stars/apo25m/FIELD/apStar-dr17-{star}.fits"] = content
        identifiers["apogee"].append(f"apo25m/FIELD/{star}")
    return {name: sorted(set(found)) for name, found in identifiers.items()}


@pytest.mark.parametrize("survey", [name for name, survey in SURVEYS.items() if survey.ARCHIVE])
def test_by_identifier(server, simulated_surveys, simulated_archive, tmp_path, survey):
    """The same rows as from the files on disk."""
    identifiers = simulated_archive[survey]
    assert identifiers
    server.faults = {path: [Fault("truncated", 5000), Fault("status", 503)] for path in list(server.files)[::3]}
    found = load_survey(survey, identifiers, base_url=server.url, cache_dir=tmp_path / "cache")
    source = simulated_surveys[survey]
    expected = load_survey(
        survey, source.rglob("apStar-*") if survey == "apogee" else source, cache_dir=tmp_path / "other cache"
    )
    assert len(found) == len(expected) > 0 and survey_report(found).damaged == 0
    ours, theirs = ({row["object_id"]: row for row in rows_of(each)} for each in (found, expected))
    for name, row in theirs.items():
        np.testing.assert_array_equal(ours[name]["wavelength"], row["wavelength"])
        np.testing.assert_array_equal(ours[name]["flux"], row["flux"])
        assert ours[name]["redshift"] == row["redshift"] or np.isnan(row["redshift"])
    before = len(server.requests)
    load_survey(survey, identifiers, base_url=server.url, cache_dir=tmp_path / "cache")
    assert len(server.requests) == before  # nothing is asked for twice


def test_real_files(server, spectra_dir, tmp_path):
    """Real files arrive byte for byte, and give the rows that they give on disk."""
    folder = tmp_path / "release"
    (folder / "desi").mkdir(parents=True)
    for kind in ("coadd", "redrock"):
        source = spectra_dir / "desi" / "fastspecfit" / f"{kind}-4-80613-thru20210324.fits"
        server.files[f"tiles/cumulative/80613/20210324/{kind}-4-80613-thru20210324.fits"] = source.read_bytes()
    for path in sorted((spectra_dir / "sdss").glob("spec-????-?????-????.fits"))[:20]:
        plate = path.name.split("-")[1]
        server.files[f"sdss/spectro/redux/26/spectra/lite/{plate}/{path.name}"] = path.read_bytes()
    server.faults = {
        path: [Fault("reset", 3000), Fault("truncated", 2000), Fault("status", 502)] for path in server.files
    }
    names = [path.rpartition("/")[2].removesuffix(".fits") for path in server.files if "/redux/26/" in path]
    for survey, identifiers in (("desi", ["4-80613-thru20210324"]), ("sdss", [f"26/{name}" for name in names])):
        dataset = load_survey(survey, identifiers, base_url=server.url, cache_dir=tmp_path / "cache")
        assert len(dataset) == survey_report(dataset).rows > 0 and survey_report(dataset).damaged == 0
    root = Archive(tmp_path / "cache").root
    received = {path.name: path.read_bytes() for path in root.rglob("*.fits")}
    assert received == {path.rpartition("/")[2]: content for path, content in server.files.items()}


def test_environment_and_mixed_entries(server, tmp_path, monkeypatch):
    """Paths, addresses and identifiers in one list; the mirror from the environment."""
    local = write_sdss(tmp_path / "spec-0003-55555-0007.fits", plate=3)
    for plate in (1, 2):
        content = write_sdss(tmp_path / "made", plate=plate).read_bytes()
        server.files[f"sdss/spectro/redux/26/spectra/lite/000{plate}/spec-000{plate}-55555-0007.fits"] = content
    (tmp_path / "made").unlink()
    monkeypatch.setenv("SPECTRAL_TOKENIZER_SDSS_URL", server.url + "/")
    address = f"{server.url}/sdss/spectro/redux/26/spectra/lite/0002/spec-0002-55555-0007.fits"
    dataset = load_survey("sdss", ["26/1-55555-7", address, local], cache_dir=tmp_path / "cache")
    assert sorted(dataset["object_id"][:]) == ["0001-55555-0007", "0002-55555-0007", "0003-55555-0007"]


def test_other_protocols(server, tmp_path):
    fsspec_memory = datasets.filesystems.fsspec.filesystem("memory")
    fsspec_memory.pipe_file("/bucket/spec-1.fits", write_sdss(tmp_path / "spec-0.fits").read_bytes())
    entries = ["memory://bucket/spec-1.fits", "memory://bucket/spec-2.fits", f"file://{tmp_path}/spec-0.fits"]
    dataset = load_survey("sdss", entries, cache_dir=tmp_path / "cache")
    assert len(dataset) == 2 and survey_report(dataset).damaged == 1
    assert survey_report(dataset).messages == [
        "memory://bucket/spec-2.fits: download: found no such file; expected a file of the archive"
    ]


# What the archive does not have


def test_not_found(server, tmp_path):
    server.files["sdss/spectro/redux/26/spectra/lite/0001/spec-0001-55555-0007.fits"] = write_sdss(
        tmp_path / "spec-1.fits"
    ).read_bytes()
    identifiers = ["26/1-55555-7", "26/2-55555-7"]
    arguments = {"base_url": server.url, "cache_dir": tmp_path / "cache"}
    dataset = load_survey("sdss", identifiers, **arguments)
    report = survey_report(dataset)
    assert (len(dataset), report.files, report.damaged) == (1, 2, 1)
    assert report.messages == [
        f"{server.url}/sdss/spectro/redux/26/spectra/lite/0002/spec-0002-55555-0007.fits: download: "
        "found HTTP 404 Not Found; expected a file of the archive"
    ]
    with pytest.raises(SpectrumFileError, match="0002-55555-0007.fits: download: found HTTP 404"):
        load_survey("sdss", identifiers, strict=True, **arguments)
    serve_plates(server, tmp_path, [2])
    assert len(load_survey("sdss", identifiers, **arguments)) == 2  # the archive has it now


def test_all_not_found(server, tmp_path):
    dataset = load_survey("desi", "main-dark-1", base_url=server.url, cache_dir=tmp_path / "cache")
    assert len(dataset) == 0 and survey_report(dataset).damaged == 1


def test_a_companion_not_found_is_not_passed_over(server, tmp_path):
    """Without its redrock file a coadd would have rows without labels."""
    write_desi(tmp_path / "coadd-1.fits", [5])
    server.files["healpix/main/dark/0/1/coadd-main-dark-1.fits"] = (tmp_path / "coadd-1.fits").read_bytes()
    dataset = load_survey("desi", "main-dark-1", base_url=server.url, cache_dir=tmp_path / "cache")
    assert "redrock-main-dark-1.fits: download: found HTTP 404" in survey_report(dataset).messages[0]
    assert len(dataset) == 0
    report = prepare_survey("desi", "main-dark-1", tmp_path / "out", base_url=server.url, cache_dir=tmp_path / "cache")
    assert (report.rows, report.damaged) == (0, 1)


def galah_night(tmp_path, stars, ccds=(1, 2, 3, 4)):
    folder = tmp_path / "made"
    folder.mkdir(exist_ok=True)
    paths = [write_galah_ccd(folder, star, ccd) for star in stars for ccd in ccds]
    return as_tar({path.name: path.read_bytes() for path in paths})


def test_stars_of_a_night(server, tmp_path):
    """A missing CCD, a star in the second tar file, and a star in none."""
    first, second, third, absent = (140101001101001 + number for number in range(4))
    server.files["spectra/tar_files/140101_com.tar.gz"] = galah_night(tmp_path, [first, second], (1, 2, 3))
    server.files["spectra/tar_files/140101_com2.tar.gz"] = galah_night(tmp_path, [third])
    arguments = {"base_url": server.url, "cache_dir": tmp_path / "cache"}
    dataset = load_survey("galah", [second, third, absent], **arguments)
    assert dict(zip(dataset["object_id"][:], dataset["source"][:])) == {
        str(second): f"{second} CCD 1,2,3",
        str(third): f"{third} CCD 1,2,3,4",
    }
    (message,) = survey_report(dataset).messages
    assert message.startswith(f"{server.url}/spectra/tar_files/140101_com.tar.gz: members: found none of the name")
    assert f"{absent}1.fits" in message
    assert len(server.requests) == 2
    assert len(load_survey("galah", [first, second], **arguments)) == 2 and len(server.requests) == 2


def test_a_damaged_tar_file(server, tmp_path):
    content = galah_night(tmp_path, [140101001101001])
    server.files["spectra/tar_files/140101_com.tar.gz"] = content[: len(content) // 2]
    dataset = load_survey("galah", 140101001101001, base_url=server.url, cache_dir=tmp_path / "cache")
    assert len(dataset) == 0
    assert "140101_com.tar.gz: file: found" in survey_report(dataset).messages[0]
    assert not list((tmp_path / "cache").rglob("*.fits")) and not left_over(Archive(tmp_path / "cache"))


# Checksums


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_checksums(server, archive, content, algorithm):
    url, digest = f"{server.url}/file.fits", hashlib.new(algorithm, content).hexdigest()
    server.files["file.fits"], server.faults["file.fits"] = content, [Fault("flipped", 77)]
    assert archive.fetch([url], {url: digest.upper()}) == {}
    assert archive.path_of(url).read_bytes() == content and len(server.requests) == 2


def test_wrong_for_good(server, archive, content):
    url, digest = f"{server.url}/file.fits", hashlib.sha256(content).hexdigest()
    server.files["file.fits"] = content[:-1] + b"?"
    failures = archive.fetch([url], {url: digest})
    assert str(failures[url]).startswith(f"{url}: sha256: found ") and str(failures[url]).endswith(
        f"expected {digest}"
    )
    assert not archive.path_of(url).exists() and not left_over(archive) and len(server.requests) == 2


def test_a_published_checksum_is_compared(server, simulated_surveys, tmp_path):
    name = next(simulated_surveys["desi"].glob("coadd-*.fits")).stem.removeprefix("coadd-")
    place = serve_desi(server, simulated_surveys["desi"].parent, name)
    arguments = {"base_url": server.url, "cache_dir": tmp_path / "cache"}
    coadd = f"{place}/coadd-{name}.fits"
    good = server.files[coadd]
    server.files[coadd] = good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]
    assert "sha256: found" in survey_report(load_survey("desi", name, **arguments)).messages[0]
    server.files[coadd] = good
    assert len(load_survey("desi", name, **arguments)) > 0


def test_an_archive_without_checksums(server, simulated_surveys, tmp_path):
    name = next(simulated_surveys["desi"].glob("coadd-*.fits")).stem.removeprefix("coadd-")
    place = serve_desi(server, simulated_surveys["desi"].parent, name)
    del server.files[f"{place}/redux_iron_{place.replace('/', '_')}.sha256sum"]
    assert len(load_survey("desi", name, base_url=server.url, cache_dir=tmp_path / "cache")) > 0


def test_format_of_checksums():
    digest = "a" * 64
    text = f"# comment\n{digest}  coadd-1.fits\n{'b' * 40} *./folder/spec 1.fits\n\nnonsense\n"
    assert read_checksums(text) == {"coadd-1.fits": digest, "spec 1.fits": "b" * 40}


# Shards


def serve_plates(server, tmp_path, plates):
    for plate in plates:
        content = write_sdss(tmp_path / "made", plate=plate).read_bytes()
        server.files[f"sdss/spectro/redux/26/spectra/lite/{plate:04d}/spec-{plate:04d}-55555-0007.fits"] = content
    (tmp_path / "made").unlink()


def test_prepare_from_an_archive(server, tmp_path):
    """Each shard asks for its own files; what the archive does not have stands in the manifest."""
    serve_plates(server, tmp_path, range(1, 10))
    identifiers = [f"26/{plate}-55555-7" for plate in range(1, 11)]
    arguments = {"base_url": server.url, "cache_dir": tmp_path / "cache", "num_shards": 2}
    report = prepare_survey("sdss", identifiers, tmp_path / "out", shards=[0], **arguments)
    assert report.rows == 5 and len(server.requests) == 5
    report = prepare_survey("sdss", identifiers, tmp_path / "out", **arguments)
    assert (report.rows, report.damaged) == (9, 1)
    lines = [json.loads(line) for line in (tmp_path / "out/sdss/_manifest/00001-of-00002.jsonl").open()]
    (line,) = [line for line in lines if line["damage"]]
    assert line["damage"]["found"] == "HTTP 404 Not Found" and "0010-55555-0007.fits" in line["damage"]["file"]
    shutil.rmtree(tmp_path / "cache")
    before = len(server.requests)
    other_place = arguments | {"cache_dir": tmp_path / "another cache"}  # another machine, or a cache that was cleaned
    assert prepare_survey("sdss", identifiers, tmp_path / "out", **other_place) == report
    assert len(server.requests) == before


def test_prepare_goes_on_after_the_archive_was_down(server, tmp_path):
    serve_plates(server, tmp_path, range(1, 7))
    identifiers = [f"26/{plate}-55555-7" for plate in range(1, 7)]
    arguments = {"base_url": server.url, "cache_dir": tmp_path / "cache", "num_shards": 3}
    broken = "sdss/spectro/redux/26/spectra/lite/0003/spec-0003-55555-0007.fits"
    server.always[broken] = Fault("reset", 10)
    server.has_validators = False
    with pytest.raises(ConnectionError, match="0003-55555-0007.fits"):
        prepare_survey("sdss", identifiers, tmp_path / "out", **arguments)
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 1
    server.always.clear()
    assert prepare_survey("sdss", identifiers, tmp_path / "out", **arguments).rows == 6
    assert [path for path, _ in server.requests].count(broken.replace("0003", "0001")) == 1


def test_streaming_back_over_http(server, tmp_path):
    """Shards on a web server are read by ranges, without a copy."""
    serve_plates(server, tmp_path, range(1, 5))
    identifiers = [f"26/{plate}-55555-7" for plate in range(1, 5)]
    prepare_survey("sdss", identifiers, tmp_path / "out", base_url=server.url, cache_dir=tmp_path, num_shards=2)
    shards = sorted((tmp_path / "out/sdss").glob("*.parquet"))
    server.files |= {shard.name: shard.read_bytes() for shard in shards}
    urls = [f"{server.url}/{shard.name}" for shard in shards]
    rows = list(datasets.load_dataset("parquet", data_files=urls, split="train", streaming=True))
    assert [row["object_id"][:4] for row in rows] == ["0001", "0002", "0003", "0004"]
    assert rows[0]["wavelength"][1] == 10 ** (3.58 + 1e-4)


# Addresses that are none


@pytest.mark.parametrize(
    "url", ["https://host", "https://host/", "https://host/folder/", "https://host/a/../../b", "https://h/%2e%2e/b"]
)
def test_addresses_that_lead_nowhere(archive, url):
    with pytest.raises(ValueError, match="found no name of a file"):
        archive.path_of(url)


def test_paths_in_the_mirror(archive):
    root = archive.root
    assert archive.path_of("https://host:8080/a%20b/c.fits") == root / "host_8080" / "a b" / "c.fits"
    assert archive.path_of("https://host/get?ID=1&F=B/../x") == root / "host" / "get_ID=1&F=B_.._x"
    assert archive.path_of("s3://bucket/key.fits") == root / "bucket" / "key.fits"


def test_apogee_by_telescope(server, tmp_path):
    content = write_apstar(tmp_path / "made.fits").read_bytes()
    server.files["redux/dr17/stars/lco25m/F/asStar-dr17-2M00000000+0000000.fits"] = content
    dataset = load_survey("apogee", "lco25m/F/2M00000000+0000000", base_url=server.url, cache_dir=tmp_path / "cache")
    assert dataset["source"][:] == ["asStar-dr17-2M00000000+0000000.fits"]
    assert Path(tmp_path / "made.fits").read_bytes() == content
