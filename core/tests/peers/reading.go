// Prints what Go's archive/tar reads of each tar that is named, for record.py.
package main

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Content is compared up to this size; sparse test files have up to 60 GiB of holes.
const hashed = 16 << 20

func text(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' && c < 0x7f && c != '\\' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "\\x%02x", c)
		}
	}
	return out.String()
}

// A name as a place in an image; one that leaves the root keeps its ".." in front.
func place(s string) string {
	clean := path.Clean(s)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return text(clean)
	}
	return "/" + text(strings.TrimPrefix(path.Clean("/"+s), "/"))
}

func read(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	entries := tar.NewReader(file)
	for {
		h, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at := place(h.Name)
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
		case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse:
			sum := "-"
			if h.Size <= hashed {
				hash := sha256.New()
				if _, err := io.Copy(hash, entries); err != nil {
					return err
				}
				sum = fmt.Sprintf("%x", hash.Sum(nil))[:16]
			}
			fmt.Printf("file %s %d %s\n", at, h.Size, sum)
		case tar.TypeLink:
			fmt.Printf("link %s %s\n", at, place(h.Linkname))
		case tar.TypeSymlink:
			fmt.Printf("symlink %s %s\n", at, text(h.Linkname))
		case tar.TypeChar:
			fmt.Printf("char %s %d:%d\n", at, h.Devmajor, h.Devminor)
		case tar.TypeBlock:
			fmt.Printf("block %s %d:%d\n", at, h.Devmajor, h.Devminor)
		case tar.TypeDir, 'D':
			fmt.Printf("dir %s\n", at)
		case tar.TypeFifo:
			fmt.Printf("fifo %s\n", at)
		default:
			fmt.Printf("type-%c %s\n", h.Typeflag, at)
		}
	}
}

func main() {
	for _, name := range os.Args[1:] {
		fmt.Printf("@ %s\n", path.Base(name))
		if err := read(name); err != nil {
			fmt.Printf("error %s\n", strings.TrimPrefix(err.Error(), "archive/tar: "))
		}
	}
}
