# CUDA -> C++: rewrites the three constructs that a C++ compiler cannot parse, or gives another meaning. Lines stay lines,
# so that messages and debuggers point into the .cu file. Use: sed -E -f cuda_to_cpp.sed FILE.cu

# kernel<<<grid, block, shared, stream>>>(arguments)  ->  kernel ->*sim::cfg(grid, block, shared, stream)(arguments)
s/<<</ ->*sim::cfg(/g
s/>>>([[:space:]]*\()/)\1/g

# extern __shared__ __align__(128) T name[];  ->  a pointer to the block's dynamic shared memory
s/extern[[:space:]]+__shared__[[:space:]]+((__align__|alignas)\([^)]*\)[[:space:]]+)?([A-Za-z_0-9:<>, ]*[A-Za-z_0-9>])[[:space:]]+([A-Za-z_][A-Za-z_0-9]*)\[\];/\3 *\4 = (\3 *)sim::dynamic_shared();/

# __shared__ __align__(16) T name[N];  ->  a reference into the block's shared memory, one place for all its threads
s/(^|[;{])([[:space:]]*)__shared__[[:space:]]+((__align__|alignas)\(([^)]*)\)[[:space:]]+)?([A-Za-z_0-9:<>, ]*[A-Za-z_0-9>])[[:space:]]+([A-Za-z_][A-Za-z_0-9]*)((\[[^]]*\])*);/\1\2static sim::SharedTag \7_tag; auto \&\7 = sim::shared_variable<\6 \8, \5+0>(\7_tag, "\7");/

# Fragments held in small arrays get into registers only when their loops are unrolled.
s/#pragma unroll([[:space:]]*)$/#pragma GCC unroll 16\1/
