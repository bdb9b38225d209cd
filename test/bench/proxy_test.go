package bench

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/keifs/keifs/test/versitygw"
)

func TestTheProxyPassesEverythingAndCounts(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	p := NewProxy(strings.TrimPrefix(srv.Endpoint, "http://"), io.Discard)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- p.Serve(front) }()
	defer func() {
		front.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	c := NewClient("http://"+front.Addr().String(), bucket, srv.AccessKey, srv.SecretKey)
	p.Reset(Profile{Rate: 1e9})

	body := noise(6 * mib)
	read := func(key string) []byte {
		t.Helper()
		var got []byte
		err := c.do(http.MethodGet, key, nil, nil, nil, func(resp *http.Response) (err error) {
			got, err = io.ReadAll(resp.Body)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.put("a b/ü", body))
	if !bytes.Equal(read("a b/ü"), body) {
		t.Error("the object is not what was put")
	}
	must(c.copy("a b/ü", "copy"))
	must(c.upload("parts", []part{{copyFrom: "copy", n: 5 * mib}, {body: body[5*mib:]}}, 2))
	if !bytes.Equal(read("parts"), body) {
		t.Error("the object of parts is not what it was made of")
	}
	all, err := c.list("")
	must(err)
	if len(all) != 3 {
		t.Errorf("listed %v", all)
	}
	must(c.remove(all))
	if keys := srv.List(t, bucket, ""); len(keys) > 0 {
		t.Errorf("not removed: %q", keys)
	}
	if err := c.get("parts", 0, 1, make([]byte, 1)); err == nil {
		t.Error("read what was removed")
	}

	got := p.Count()
	want := map[string]int64{
		"PUT": 1, "GET": 3, "COPY": 1, "CreateUpload": 1, "PartCopy": 1, "Part": 1, "CompleteUpload": 1, "LIST": 1, "BatchDelete": 1,
	}
	if !maps.Equal(got.Requests, want) || got.Failed != 0 || got.Changing != 0 {
		t.Errorf("counted %v (%d failed, %d under way), not %v", got.Requests, got.Failed, got.Changing, want)
	}
	if min := int64(2 * len(body)); got.Down < min || got.Down > min+100_000 {
		t.Errorf("counted %d bytes down", got.Down)
	}
	if min := int64(7 * mib); got.Up < min || got.Up > min+100_000 {
		t.Errorf("counted %d bytes up", got.Up)
	}
}
