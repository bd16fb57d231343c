/* A main for the targets where there is no libFuzzer: runs each file of the folders, or each file, that it is given. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fuzz.h"

static bool run_file(const char *path)
{
    struct stat st;
    FILE *file = fopen(path, "rb");
    if (file == NULL || fstat(fileno(file), &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size + 1);
    assert(data != NULL);
    bool whole = fread(data, 1, size, file) == size;
    fclose(file);
    if (whole) {
        fprintf(stderr, "%s\n", path); /* before it runs: a crash is behind the name of its input */
        char *exact = exact_copy(data, size);
        LLVMFuzzerTestOneInput((const uint8_t *)exact, size);
        free(exact);
    }
    free(data);
    return whole;
}

/* How many files were run; -1: one could not be read. */
static int run_folder(const char *folder)
{
    char path[4096];
    int files = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return run_file(folder) ? 1 : -1;
    for (const struct dirent *entry; files >= 0 && (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        files = run_file(path) ? files + 1 : -1;
    }
    closedir(dir);
    return files;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        int n = run_folder(argv[i]);
        if (n < 0)
            return 1;
        files += n;
    }
    printf("%d inputs\n", files);
    return files > 0 ? 0 : 1;
}
