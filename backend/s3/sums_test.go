package s3_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/test/minio"
	"github.com/keifs/keifs/test/versitygw"
)

// onSumServers runs a test on a new bucket of each real server.
func onSumServers(t *testing.T, test func(t *testing.T, opts s3.Options, client *awss3.Client)) {
	t.Run("versitygw", func(t *testing.T) {
		srv := versitygw.Shared(t)
		credentials(t, srv)
		test(t, s3.Options{Bucket: srv.NewBucket(t), Endpoint: srv.Endpoint}, srv.Client())
	})
	t.Run("minio", func(t *testing.T) {
		opts := onMinIO(t)
		test(t, opts, minio.Shared(t).Client())
	})
}

// assembled sends an object in two parts.
func assembled(t *testing.T, b backend.Backend, data []byte) error {
	t.Helper()
	a, _ := backend.As[backend.Assembler](b)
	asm, err := a.Assemble(t.Context(), "k", backend.PutOptions{NoCopies: true})
	if err != nil {
		t.Fatal(err)
	}
	cut := int64(5 << 20)
	for i, n := range []int64{cut, int64(len(data)) - cut} {
		if err := asm.PutPart(t.Context(), i+1, backend.Section(backend.Bytes(data), int64(i)*cut, n)); err != nil {
			return errors.Join(err, asm.Abort(t.Context()))
		}
	}
	_, err = asm.Complete(t.Context())
	return err
}

func TestAnObjectInPartsHasTheChecksumOfTheWhole(t *testing.T) {
	onSumServers(t, func(t *testing.T, opts s3.Options, client *awss3.Client) {
		b := open(t, opts)
		defer b.Close()
		data := bytes.Repeat([]byte("0123456789abcdef"), 6<<16)
		if err := assembled(t, b, data); err != nil {
			t.Fatal(err)
		}
		o, err := client.HeadObject(t.Context(), &awss3.HeadObjectInput{
			Bucket: &opts.Bucket, Key: aws.String("k"), ChecksumMode: types.ChecksumModeEnabled,
		})
		if err != nil {
			t.Fatal(err)
		}
		sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
		want := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
		if got := aws.ToString(o.ChecksumCRC32C); got != want {
			t.Errorf("the server has the checksum %q, want %q", got, want)
		}
		got, _, err := backend.ReadAll(t.Context(), b, "k", 1<<30)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// breaker flips a bit of the first part that passes.
type breaker struct {
	http.RoundTripper
	done atomic.Bool
}

func (b *breaker) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Has("partNumber") && !b.done.Swap(true) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body[len(body)/2] ^= 1
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return b.RoundTripper.RoundTrip(r)
}

func TestAPartThatArrivesAsSomethingElseIsRefused(t *testing.T) {
	onSumServers(t, func(t *testing.T, opts s3.Options, client *awss3.Client) {
		opts.Transport = &breaker{RoundTripper: httpio.NewTransport()}
		b := open(t, opts)
		defer b.Close()
		data := bytes.Repeat([]byte("0123456789abcdef"), 6<<16)
		if err := assembled(t, b, data); !errors.Is(err, backend.ErrTransient) {
			t.Errorf("a bit has changed on the way: %v", err)
		}
		if err := assembled(t, b, data); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// A store that knows no checksums is sent none, from the second time on
// without being asked.
func TestAStoreWithoutChecksumsGetsPartsWithoutThem(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"it ignores them":    nil,
		"it refuses them":    refuse(http.StatusBadRequest, "InvalidArgument"),
		"it has not come so": refuse(http.StatusNotImplemented, "NotImplemented"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			b := f.open(t, s3.Options{})
			f.set(func(w http.ResponseWriter, r *http.Request) {
				if answer != nil && r.Header.Get("X-Amz-Checksum-Algorithm") != "" {
					answer(w, r)
					return
				}
				uploads(w, r)
			})
			for range 2 {
				if err := assembled(t, b, make([]byte, 6<<20)); err != nil {
					t.Fatal(err)
				}
			}
			asked := 0
			for _, r := range f.all() {
				if r.Header.Get("X-Amz-Checksum-Algorithm") != "" {
					asked++
				}
				if v := r.Header.Get("X-Amz-Checksum-Crc32c"); v != "" {
					t.Errorf("%s has the checksum %s", what(r), v)
				}
			}
			if want := map[bool]int{true: 2, false: 1}[answer == nil]; asked != want {
				t.Errorf("%d uploads declare checksums, want %d", asked, want)
			}
		})
	}
}
