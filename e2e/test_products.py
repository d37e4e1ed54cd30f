"""A product through the studio: its sample is read, kept as a dataset as it is, and passes with its template."""

import pytest


@pytest.mark.parametrize("name", ["augmentation", "event_titles", "persona", "sentiment"])
def test_a_product_can_be_tuned_with_its_own_sample(studio, name):
    with studio.http() as http:
        assert name in [each["name"] for each in http.get("/studio/v1/products").raise_for_status().json()["data"]]
        product = http.get(f"/studio/v1/products/{name}").raise_for_status().json()
        sample = http.get(f"/studio/v1/products/{name}/sample").raise_for_status()
        assert len(sample.content) == product["sample"]["size_bytes"]
        assert product["sample"]["filename"] in sample.headers["content-disposition"]
        files = {"file": (product["sample"]["filename"], sample.content)}
        kept = http.post("/studio/v1/datasets", data={"name": name}, files=files).raise_for_status().json()
        asked = {
            "template": product["template"],
            "slots": product["hyperparameters"]["slots"],
            "shares": product["shares"],
            "model": studio.model,
        }
        report = http.post(f"/studio/v1/datasets/{kept['id']}/report", json=asked).raise_for_status().json()
    assert (report["passes"], report["findings"], report["rows"]) == (True, [], product["sample"]["rows"])


def test_a_product_that_is_not_there(studio):
    with studio.http() as http:
        for path in ("/studio/v1/products/poems", "/studio/v1/products/poems/sample"):
            response = http.get(path)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert "sentiment" in response.json()["detail"]
