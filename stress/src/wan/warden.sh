# Kills what is left in the network namespaces of a network when its emulator has ended.
#
# Standard input ends with the emulator, however that ends. The arguments are the namespaces' inode
# numbers, which stay theirs because this process holds them open.
cat > /dev/null
rounds=1000
while [ $rounds -gt 0 ]; do
    left=
    for entry in $(stat -L -c '%i:%n' /proc/[0-9]*/ns/net 2> /dev/null); do
        case " $* " in
            *" ${entry%%:*} "*)
                process=${entry#*:/proc/}
                kill -9 "${process%%/*}" && left=yes
                ;;
        esac
    done
    [ $left ] || break
    rounds=$((rounds - 1))
    sleep 0.01
done
